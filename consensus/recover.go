package consensus

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"

	"github.com/remora-ha/remora/core"
)

// ErrNoState is returned by Recover for a state directory without the state of a cluster.
var ErrNoState = errors.New("the state directory holds no state of a cluster: there is nothing to recover")

// Recoverable is a ledger that can go on alone.
type Recoverable interface {
	FSM
	// Recover makes sure that nothing the lost majority may have granted is as new as what comes after.
	Recover(by core.NodeName, at int64, reason string)
}

// Recover makes this node the only voter of its cluster, for when the majority is lost for good. No daemon may run on the
// state directory. The other nodes, if they come back, must come back with empty state directories and join anew: with
// what they have now they could go on as the cluster that they were.
func Recover(stateDir string, self core.NodeName, ledger Recoverable, reason string, log *slog.Logger) (err error) {
	locked, err := prepareDir(stateDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, locked.Close()) }()
	id, err := serverID(stateDir, self)
	if err != nil {
		return err
	}
	if _, err := takeLongest(stateDir); err != nil {
		return err
	}
	logger := newRaftLogger(log)
	store, err := openStore(filepath.Join(stateDir, logDir), openBolt, time.Minute, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	snaps, err := raft.NewFileSnapshotStoreWithLogger(stateDir, keptSnapshots, logger)
	if err != nil {
		return fmt.Errorf("open the snapshots in %s: %w", stateDir, err)
	}
	has, err := raft.HasExistingState(store, store, snaps)
	if err != nil {
		return fmt.Errorf("look for state in %s: %w", stateDir, err)
	}
	if !has {
		return ErrNoState
	}
	c := raft.DefaultConfig()
	c.LocalID, c.Logger, c.NoLegacyTelemetry = id, logger, true
	_, nowhere := raft.NewInmemTransport(raft.ServerAddress(id)) // addresses are server IDs; the library only copies them
	alone := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: id, Address: raft.ServerAddress(id)}}}
	fsm := &recovery{ledger: ledger, self: self, reason: reason}
	if err := raft.RecoverCluster(c, fsm, store, store, snaps, nowhere, alone); err != nil {
		return fmt.Errorf("recover the cluster from %s: %w", stateDir, err)
	}
	return nil
}

// recovery is the state machine of a recovery: it takes what is there, and the snapshot that it ends with is the
// recovered ledger.
type recovery struct {
	ledger Recoverable
	self   core.NodeName
	reason string
}

// Apply implements raft.FSM.
func (r *recovery) Apply(l *raft.Log) any {
	c, err := decodeCommand(l.Data)
	if err != nil {
		panic(fmt.Sprintf("consensus: log entry %d of term %d can not be applied: %v", l.Index, l.Term, err))
	}
	return r.ledger.Apply(core.Index(l.Index), core.Term(l.Term), c)
}

// Snapshot implements raft.FSM.
func (r *recovery) Snapshot() (raft.FSMSnapshot, error) {
	r.ledger.Recover(r.self, time.Now().UnixMilli(), r.reason)
	b, err := r.ledger.Snapshot()
	return snapshot(b), err
}

// Restore implements raft.FSM.
func (r *recovery) Restore(in io.ReadCloser) error {
	defer in.Close()
	b, err := readSnapshot(in)
	if err != nil {
		return err
	}
	return r.ledger.Restore(b)
}
