package consensus

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/remora-ha/remora/core"
)

// FSM is the replicated state: the ledger. Apply is deterministic, has no side effect and does not look at this node.
type FSM interface {
	// Apply applies the command of the log entry at index, of the given term.
	Apply(index core.Index, term core.Term, c core.Command) []core.Outcome
	// View returns a copy of the present state.
	View() core.View
	// History returns a copy of the history, the oldest entry first.
	History() []core.Entry
	// Snapshot returns a versioned encoding of the whole state.
	Snapshot() ([]byte, error)
	// Restore replaces the state by that of a snapshot.
	Restore([]byte) error
}

// maxSnapshot bounds a snapshot in bytes.
const maxSnapshot = 64 << 20

// readSnapshot reads a whole snapshot. One that is too long is an error, and not cut: half a state would be another state.
func readSnapshot(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxSnapshot+1))
	if err != nil {
		return nil, fmt.Errorf("read a snapshot: %w", err)
	}
	if len(b) > maxSnapshot {
		return nil, fmt.Errorf("read a snapshot: more than the %d bytes that it may have", maxSnapshot)
	}
	return b, nil
}

// adapter makes the ledger a state machine of the Raft library and tells what happens to it.
type adapter struct {
	n *Node

	mu      sync.Mutex // guards the ledger
	ledger  FSM
	longest longest // as it is on disk

	applied atomic.Uint64
}

// Apply implements raft.FSM. It panics when it meets an entry that it can not apply: to go on would give this node
// another state than the others have.
func (a *adapter) Apply(l *raft.Log) any {
	c, err := decodeCommand(l.Data)
	if err != nil {
		panic(fmt.Sprintf("consensus: log entry %d of term %d can not be applied: %v; if a newer release wrote it, install that release here",
			l.Index, l.Term, err))
	}
	a.mu.Lock()
	out := a.ledger.Apply(core.Index(l.Index), core.Term(l.Term), c)
	view := a.ledger.View()
	a.mu.Unlock()
	if a.keepLongest(view) != nil {
		return nil // the node ends, and delivers nothing more
	}
	a.applied.Store(l.Index)
	a.n.deliver(core.Committed{Index: core.Index(l.Index), Term: core.Term(l.Term), Command: c, Outcomes: out, View: view})
	a.n.configured(c)
	return nil
}

// StoreConfiguration implements raft.ConfigurationStore: it is called when a Raft configuration is committed.
func (a *adapter) StoreConfiguration(index uint64, _ raft.Configuration) {
	a.applied.Store(index)
	poke(a.n.changed)
}

// keepLongest writes the longest lease down before anybody learns of it. A write that fails is tried until it is done, like
// that of the term: a restart of this node would wait too short a time. It returns an error if the node ends before.
func (a *adapter) keepLongest(v core.View) error {
	now := longest{lease: v.Longest, at: v.Index}
	if now.lease == a.longest.lease || now.lease <= 0 || now.at <= a.longest.at {
		return nil
	}
	if err := a.n.store.log.insist(opLongest, func() error { return now.write(a.n.cfg.StateDir) }); err != nil {
		return err
	}
	a.longest = now
	return nil
}

// Snapshot implements raft.FSM.
func (a *adapter) Snapshot() (raft.FSMSnapshot, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	b, err := a.ledger.Snapshot()
	return snapshot(b), err
}

// Restore implements raft.FSM.
func (a *adapter) Restore(r io.ReadCloser) error {
	defer r.Close()
	a.n.store.roster.unsettle() // with the snapshot comes its configuration
	b, err := readSnapshot(r)
	if err != nil {
		return err
	}
	a.mu.Lock()
	err = a.ledger.Restore(b)
	view := a.ledger.View()
	a.mu.Unlock()
	if err != nil {
		return fmt.Errorf("restore a snapshot: %w", err)
	}
	if err := a.keepLongest(view); err != nil {
		return fmt.Errorf("restore a snapshot: %w", err)
	}
	a.applied.Store(uint64(view.Index))
	a.n.deliver(core.Restored{View: view})
	poke(a.n.refit)
	poke(a.n.changed)
	return nil
}

// snapshot is an encoded ledger on its way to disk.
type snapshot []byte

// Persist implements raft.FSMSnapshot.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := sink.Write(s); err != nil {
		_ = sink.Cancel()
		return fmt.Errorf("write a snapshot: %w", err)
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (snapshot) Release() {}

// View returns a copy of the ledger's present state. It may be called from any goroutine.
func (n *Node) View() core.View {
	n.fsm.mu.Lock()
	defer n.fsm.mu.Unlock()
	return n.fsm.ledger.View()
}

// History returns a copy of the ledger's history. It may be called from any goroutine.
func (n *Node) History() []core.Entry {
	n.fsm.mu.Lock()
	defer n.fsm.mu.Unlock()
	return n.fsm.ledger.History()
}

// configured looks whether a command changes the nodes of the cluster.
func (n *Node) configured(c core.Command) {
	for _, op := range c.Ops {
		if op.Configure != nil {
			poke(n.refit)
			poke(n.changed)
		}
	}
}
