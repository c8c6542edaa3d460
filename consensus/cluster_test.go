package consensus

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/alarm"
)

// fakeLedger is a ledger that keeps what was applied.
type fakeLedger struct {
	state struct {
		Index   core.Index
		Term    core.Term
		IDs     []uint64
		Config  core.Config
		Longest core.Millis
	}
}

func (l *fakeLedger) Apply(i core.Index, term core.Term, c core.Command) []core.Outcome {
	l.state.Index, l.state.Term = i, term
	l.state.IDs = append(l.state.IDs, c.ID)
	for _, op := range c.Ops {
		if op.Configure != nil {
			l.state.Config = *op.Configure
			l.state.Longest = max(l.state.Longest, op.Configure.TTL)
		}
	}
	return make([]core.Outcome, len(c.Ops))
}

func (l *fakeLedger) View() core.View {
	return core.View{Index: l.state.Index, Term: l.state.Term, Config: l.state.Config, Longest: l.state.Longest}
}

func (l *fakeLedger) History() []core.Entry {
	es := make([]core.Entry, len(l.state.IDs))
	for i, id := range l.state.IDs {
		es[i].Epoch = core.Epoch(id)
	}
	return es
}

func (l *fakeLedger) Snapshot() ([]byte, error) { return json.Marshal(l.state) }
func (l *fakeLedger) Restore(b []byte) error    { return json.Unmarshal(b, &l.state) }

// testTiming is slow enough for a busy machine and for the race detector.
func testTiming() core.Timing {
	t, err := core.ProfileTiming("lan")
	if err != nil {
		panic(err)
	}
	t.RaftHeartbeat, t.RaftElection = 150*time.Millisecond, 150*time.Millisecond
	return t
}

// member is one node of a test cluster, over the restarts of its process.
type member struct {
	c    *cluster
	name core.NodeName
	dir  string
	tls  TLSFiles

	*Node
	mu     sync.Mutex
	events []core.Event
	grams  []core.Received
	// outcomes gets what became of proposals instead of events, unless it is nil.
	outcomes chan<- core.Event
	full     atomic.Bool
	alarms   alarm.Maker
}

// cluster is a set of members on 127.0.0.1, .2, .3 and so on.
type cluster struct {
	t      testing.TB
	ca     *authority
	specs  []core.NodeSpec
	nodes  []*member
	timing core.Timing
	host   host // nil is the machine's own
}

const testCluster = "orders"

// nextNet gives each cluster loopback addresses of its own, 127.1.N.x.
var nextNet atomic.Uint32

func newCluster(t testing.TB, names ...core.NodeName) *cluster {
	t.Helper()
	c := &cluster{t: t, ca: newAuthority(t), timing: testTiming()}
	net := byte(nextNet.Add(1))
	for i, name := range names {
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, net, byte(i + 1)}), 7400)
		c.specs = append(c.specs, core.NodeSpec{Name: name, Address: at})
		c.nodes = append(c.nodes, &member{c: c, name: name, dir: filepath.Join(t.TempDir(), "state"), tls: c.ca.issue(t, testCluster, name)})
	}
	t.Cleanup(func() {
		for _, m := range c.nodes {
			m.shutdown()
		}
	})
	return c
}

// open opens the node without starting it.
func (m *member) open() {
	m.c.t.Helper()
	n, err := Open(m.config())
	must(m.c.t, err)
	m.Node = n
}

func (m *member) config() Config {
	var logger *slog.Logger
	if os.Getenv("REMORA_TEST_LOG") != "" {
		logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", m.name)
	}
	return Config{Self: m.name, Cluster: testCluster, Peers: m.c.specs, StateDir: m.dir, Timing: m.c.timing, TLS: m.tls,
		Ledger: &fakeLedger{}, host: m.c.host, Incarnation: core.Incarnation(rand.Uint64() | 1), Logger: logger, Alarms: m.alarms,
		Deliver: func(e core.Event) {
			m.mu.Lock()
			defer m.mu.Unlock()
			if m.outcomes != nil {
				switch e.(type) {
				case core.Committed, core.ProposalFailed:
					m.outcomes <- e
					return
				}
			}
			m.events = append(m.events, e)
		},
		DeliverDatagram: func(e core.Event) bool {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.grams = append(m.grams, e.(core.Received))
			return !m.full.Load()
		},
	}
}

func (m *member) start() {
	m.c.t.Helper()
	if m.Node == nil {
		m.open()
	}
	must(m.c.t, m.Start(context.Background()))
}

func (m *member) shutdown() {
	m.c.t.Helper()
	if m.Node == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := m.Shutdown(ctx); err != nil {
		m.c.t.Errorf("shut %s down: %v", m.name, err)
	}
	m.Node = nil
}

// forget drops what the member was told so far.
func (m *member) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events, m.grams = nil, nil
}

// wipe loses the state directory, as a reinstallation does.
func (m *member) wipe() {
	must(m.c.t, os.RemoveAll(m.dir))
	m.forget()
}

// eventsOf returns the events of one type.
func eventsOf[E core.Event](m *member) []E {
	m.mu.Lock()
	defer m.mu.Unlock()
	var es []E
	for _, e := range m.events {
		if e, ok := e.(E); ok {
			es = append(es, e)
		}
	}
	return es
}

func (m *member) received() []core.Received {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.grams)
}

// committed returns the IDs of the commands that the member has applied in this process, in order.
func (m *member) committed() []uint64 {
	var ids []uint64
	for _, e := range eventsOf[core.Committed](m) {
		ids = append(ids, e.Command.ID)
	}
	return ids
}

// eventually waits until ok says yes.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30s: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (c *cluster) startAll() {
	c.t.Helper()
	for _, m := range c.nodes {
		m.start()
	}
}

// leader waits until one of the running members leads and all of them that are given agree.
func (c *cluster) leader(among ...*member) *member {
	c.t.Helper()
	if len(among) == 0 {
		among = c.nodes
	}
	var found *member
	eventually(c.t, "one leader that all agree on", func() bool {
		found = nil
		for _, m := range among {
			if m.Status().State == "leader" {
				found = m
			}
		}
		return found != nil && !slices.ContainsFunc(among, func(m *member) bool { return m.Leader() != found.name })
	})
	return found
}

func (c *cluster) others(m *member) []*member {
	return slices.DeleteFunc(slices.Clone(c.nodes), func(o *member) bool { return o == m })
}

var lastID atomic.Uint64

// commit proposes a command at whoever leads until it is committed, and returns its ID.
func (c *cluster) commit(among ...*member) uint64 {
	c.t.Helper()
	if len(among) == 0 {
		among = c.nodes
	}
	for range 20 {
		id := lastID.Add(1)
		l := c.leader(among...)
		l.Propose(core.Command{ID: id, By: l.name, Ops: []core.Op{{Pause: &core.Pause{Group: "writer"}}}}, nil)
		done, failed := false, false
		eventually(c.t, fmt.Sprintf("an outcome of command %d", id), func() bool {
			done = slices.Contains(l.committed(), id)
			failed = slices.ContainsFunc(eventsOf[core.ProposalFailed](l), func(f core.ProposalFailed) bool { return f.ID == id })
			return done || failed
		})
		if done {
			return id
		}
	}
	c.t.Fatal("no command could be committed in 20 attempts")
	return 0
}

// have waits until all given members have applied the command.
func (c *cluster) have(id uint64, ms ...*member) {
	c.t.Helper()
	for _, m := range ms {
		eventually(c.t, fmt.Sprintf("%s applies command %d", m.name, id), func() bool {
			return slices.ContainsFunc(m.History(), func(e core.Entry) bool { return uint64(e.Epoch) == id })
		})
	}
}
