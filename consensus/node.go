package consensus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/alarm"
)

// Config is what a Node needs to know. A field is required unless it says otherwise.
type Config struct {
	// Self is this node's name, Cluster the cluster's. The certificate must carry both.
	Self    core.NodeName
	Cluster string
	// Peers are the nodes of the configuration file, this one among them. Address is used for TCP and UDP alike. Once
	// the ledger has a configuration, its nodes are used in their place.
	Peers []core.NodeSpec
	// StateDir holds the Raft log and what else must survive a restart. It is made private and locked.
	StateDir string
	Timing   core.Timing
	TLS      TLSFiles
	Ledger   FSM
	// Incarnation is the random number of this process.
	Incarnation core.Incarnation
	// Deliver takes the events that must not be lost. It is called from several goroutines and must not block for long.
	Deliver func(core.Event)
	// DeliverDatagram takes a core.Received. It reports false when it has dropped it.
	DeliverDatagram func(core.Event) bool
	// DeliverClients takes what an owner says of its clients; nil means that nobody wants to know. It must not block.
	DeliverClients func(from core.NodeName, c core.Clients)
	// Alarms makes the timer of what goes on all the time; nil means one of the Go runtime.
	Alarms alarm.Maker
	// Logger may be nil.
	Logger *slog.Logger

	host host // nil means the machine that this process runs on
}

func (c *Config) check() error {
	var missing []string
	for name, ok := range map[string]bool{"Self": c.Self != "", "Cluster": c.Cluster != "", "StateDir": c.StateDir != "",
		"Ledger": c.Ledger != nil, "Incarnation": c.Incarnation != 0, "Deliver": c.Deliver != nil,
		"DeliverDatagram": c.DeliverDatagram != nil, "Timing": c.Timing.RaftHeartbeat > 0 && c.Timing.RaftElection > 0,
		"Peers": len(c.Peers) > 0, "TLS": c.TLS.CA != "" && c.TLS.Cert != "" && c.TLS.Key != ""} {
		if !ok {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return fmt.Errorf("consensus: not set: %v", missing)
	}
	return nil
}

// Node is this node's part in the consensus: its Raft server, its sessions to the peers and its sockets.
type Node struct {
	cfg    Config
	lim    limits
	log    *slog.Logger
	self   netip.AddrPort
	opened time.Time

	lock     *os.File
	id       raft.ServerID
	identity atomic.Pointer[identity]
	store    *store
	snaps    raft.SnapshotStore
	fsm      *adapter
	port     *port
	wire     *wire
	stream   *streamLayer
	peers    table
	openers  openers
	beats    *beats
	earlies  earlies

	raft     atomic.Pointer[raft.Raft]
	trans    *transport
	hasState atomic.Bool  // the log or a snapshot is there
	joining  atomic.Bool  // this node asks to be taken in
	settled  atomic.Bool  // this node votes, as the watcher saw last
	rank     atomic.Int64 // its place among those that may follow the leader, as the watcher saw last
	tempo    tempo        // for what hasten has set Raft's timers
	beaten   time.Time    // when hasten last had heartbeats sent
	asking   atomic.Bool  // Raft was asked whether it leads, and has not answered
	retired  atomic.Bool  // this server was removed and has stopped Raft
	control  atomic.Pointer[ControlHandler]
	hooks    atomic.Int32 // control streams of hooks
	refusals atomic.Uint64
	commits  window
	saying   sync.Mutex // guards said
	said     uint64     // how many hellos were made
	removal  removal

	proposals  chan proposal
	changed    chan struct{} // Raft's state may have changed
	helloed    chan struct{} // a peer has said something, for a node that waits to enter
	membership chan struct{} // the same, and more, for a leader's housekeeping
	refit      chan struct{} // the ledger's nodes may have changed
	canvassed  chan struct{} // somebody has asked for a pre-vote
	turned     chan struct{} // Raft became follower, candidate or leader
	contacted  chan struct{} // a datagram told of the leader
	riding     chan struct{} // a confirm round goes out
	failed     chan error

	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup
	// spawning orders the start of goroutines before the wait for their end.
	spawning sync.Mutex
	ends     sync.Once
	quit     atomic.Bool
}

// Open takes the state directory, opens the store and the sockets and makes sessions to the peers. The node does not
// vote, does not answer Raft calls and reports term 0 until Start.
func Open(cfg Config) (*Node, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.host == nil {
		cfg.host = linux{}
	}
	n := &Node{cfg: cfg, lim: limitsOf(cfg.Timing), log: cfg.Logger, opened: time.Now(),
		proposals: make(chan proposal, maxProposals), changed: make(chan struct{}, 1), helloed: make(chan struct{}, 1), membership: make(chan struct{}, 1),
		refit: make(chan struct{}, 1), canvassed: make(chan struct{}, 1),
		turned: make(chan struct{}, 1), contacted: make(chan struct{}, 1), riding: make(chan struct{}, 1), beats: newBeats(), failed: make(chan error, 1)}
	n.ctx, n.stop = context.WithCancel(context.Background())
	n.fsm = &adapter{n: n, ledger: cfg.Ledger}
	if err := n.open(); err != nil {
		n.stop()
		return nil, errors.Join(fmt.Errorf("open the consensus of node %q: %w", cfg.Self, err), n.release())
	}
	n.serve()
	return n, nil
}

// open acquires everything that may fail.
func (n *Node) open() (err error) {
	i := slices.IndexFunc(n.cfg.Peers, func(s core.NodeSpec) bool { return s.Name == n.cfg.Self })
	if i < 0 {
		return fmt.Errorf("%w: the configuration has no node of that name", ErrNotMember)
	}
	n.self = n.cfg.Peers[i].Address
	id, err := loadIdentity(n.cfg.TLS, n.cfg.Cluster, n.cfg.Self)
	if err != nil {
		return err
	}
	n.identity.Store(id)
	dir := n.cfg.StateDir
	if n.lock, err = prepareDir(dir); err != nil {
		return err
	}
	if n.id, err = serverID(dir, n.cfg.Self); err != nil {
		return err
	}
	if n.fsm.longest, err = takeLongest(dir); err != nil {
		return err
	}
	logger := newRaftLogger(n.log)
	if n.store, err = openStore(filepath.Join(dir, logDir), n.cfg.host.openLog, n.lim.disk, n.log); err != nil {
		return err
	}
	turned := func() { poke(n.turned); poke(n.changed) }
	n.store.log.changed.Store(&turned)
	if n.snaps, err = raft.NewFileSnapshotStoreWithLogger(dir, keptSnapshots, logger); err != nil {
		return fmt.Errorf("open the snapshots in %s: %w", dir, err)
	}
	if err := n.findState(); err != nil {
		return err
	}
	if n.port, err = listen(n, n.self); err != nil {
		return err
	}
	n.wire, err = openWire(n, n.self)
	return err
}

// findState looks whether this node has a Raft log or a snapshot.
func (n *Node) findState() error {
	empty, err := n.store.empty()
	if err != nil {
		return fmt.Errorf("look into the Raft log: %w", err)
	}
	snaps, err := n.snaps.List()
	if err != nil {
		return fmt.Errorf("list the snapshots: %w", err)
	}
	n.hasState.Store(!empty || len(snaps) > 0)
	return nil
}

// serve starts the goroutines that run from Open on.
func (n *Node) serve() {
	n.stream = newStreamLayer(n)
	n.port.routes = n.routes()
	n.setPeers(n.members())
	n.spawn(n.port.serve)
	n.spawn(n.wire.serve)
	n.spawn(n.propose)
	n.spawn(n.watch)
	n.spawn(n.answerBeats)
}

// spawn runs f in a goroutine that Shutdown waits for. After Shutdown has begun it does nothing.
func (n *Node) spawn(f func()) {
	n.spawning.Lock()
	defer n.spawning.Unlock()
	if n.ctx.Err() == nil {
		n.wg.Go(f)
	}
}

// pause waits for d. It reports false when the node ends meanwhile.
func (n *Node) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-n.ctx.Done():
		return false
	}
}

// deliver hands an event to the agent, unless the node has ended.
func (n *Node) deliver(e core.Event) {
	if !n.quit.Load() {
		n.cfg.Deliver(e)
	}
}

// Failed yields the reason when this node can not go on: its Raft server was removed from the cluster, say. The process
// should then give up everything and end.
func (n *Node) Failed() <-chan error { return n.failed }

func (n *Node) fail(err error) {
	n.log.Error("consensus has ended on this node", "error", err)
	select {
	case n.failed <- err:
	default:
	}
}

// Reload reads the certificates and the key again. Sessions are made anew with them; on an error the old ones stay in
// use.
func (n *Node) Reload() error {
	id, err := loadIdentity(n.cfg.TLS, n.cfg.Cluster, n.cfg.Self)
	if err != nil {
		return fmt.Errorf("reload the TLS files: %w", err)
	}
	n.identity.Store(id)
	for _, p := range n.peers.all() {
		poke(p.kick)
	}
	return nil
}

// Shutdown ends the node in order: no more proposals and datagrams, then Raft, then the sessions and the store. It
// returns when all has ended, or when ctx is over.
func (n *Node) Shutdown(ctx context.Context) error {
	var err error
	n.ends.Do(func() { err = n.shutdown(ctx) })
	return err
}

func (n *Node) shutdown(ctx context.Context) error {
	n.quit.Store(true)
	n.spawning.Lock()
	n.stop()
	n.spawning.Unlock()
	done := make(chan error, 1)
	go func() {
		n.store.log.interrupt()
		err := errors.Join(n.stopRaft(), n.wire.conn.Close(), n.port.close())
		n.wg.Wait()
		// Raft may have been started just then.
		err = errors.Join(err, n.stopRaft())
		n.beats.stop()
		done <- errors.Join(err, n.release())
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("shut the consensus of node %q down: %w", n.cfg.Self, ctx.Err())
	}
}

func (n *Node) stopRaft() error {
	if r := n.raft.Load(); r != nil {
		return r.Shutdown().Error()
	}
	return nil
}

// release closes what open has acquired.
func (n *Node) release() error {
	var errs []error
	if n.wire == nil && n.port != nil {
		errs = append(errs, n.port.close())
	}
	if n.store != nil {
		errs = append(errs, n.store.Close())
	}
	if n.lock != nil {
		errs = append(errs, n.lock.Close())
	}
	return errors.Join(errs...)
}

func (n *Node) fileNodes() []core.NodeName {
	names := make([]core.NodeName, 0, len(n.cfg.Peers))
	for _, p := range n.cfg.Peers {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	return names
}
