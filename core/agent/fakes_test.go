package agent

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-ha/remora/core"
)

var errLate = errors.New("too late")

// fakeKernel is a binder and announcer whose calls take a millisecond. A hook takes the place of a call.
type fakeKernel struct {
	clock func() core.Instant

	mu    sync.Mutex
	calls []string // what was begun, in order
	bound bool
	hooks hooks
}

type hooks struct {
	bind   func(context.Context, core.Bind) error
	extend func(context.Context, core.Extend) error
	unbind func(context.Context, core.Unbind) error
	arm    func()
}

func (k *fakeKernel) setHooks(h hooks) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.hooks = h
}

// begin notes a call and returns what takes its place.
func (k *fakeKernel) begin(call string) hooks {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls = append(k.calls, call)
	return k.hooks
}

func (k *fakeKernel) set(bound bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.bound = bound
}

// count returns how often a call was begun.
func (k *fakeKernel) count(call string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := 0
	for _, c := range k.calls {
		if c == call {
			n++
		}
	}
	return n
}

func (k *fakeKernel) isBound() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.bound
}

func (k *fakeKernel) Arm(context.Context, core.Arm) error {
	if h := k.begin("arm"); h.arm != nil {
		h.arm()
	}
	return nil
}

func (k *fakeKernel) Bind(ctx context.Context, a core.Bind) error {
	if h := k.begin("bind"); h.bind != nil {
		return h.bind(ctx, a)
	}
	time.Sleep(time.Millisecond)
	if k.clock() > a.NotAfter {
		return errLate
	}
	k.set(true)
	return nil
}

func (k *fakeKernel) Extend(ctx context.Context, a core.Extend) error {
	if h := k.begin("extend"); h.extend != nil {
		return h.extend(ctx, a)
	}
	time.Sleep(time.Millisecond)
	return nil
}

func (k *fakeKernel) Prolong(core.Prolong) { k.begin("prolong") }

func (k *fakeKernel) Unbind(ctx context.Context, a core.Unbind) error {
	if h := k.begin("unbind"); h.unbind != nil {
		return h.unbind(ctx, a)
	}
	time.Sleep(time.Millisecond)
	k.set(false)
	return nil
}

func (k *fakeKernel) Probe(_ context.Context, a core.Probe) (net.HardwareAddr, error) {
	k.begin("probe")
	time.Sleep(a.For)
	return nil, nil
}

func (k *fakeKernel) Announce(context.Context, core.Announce) error {
	k.begin("announce")
	return nil
}

func (k *fakeKernel) Late(err error) bool { return errors.Is(err, errLate) }
func (k *fakeKernel) Absent(error) bool   { return false }

// fakeRaft is a Raft of one node, whose entries take two milliseconds.
type fakeRaft struct {
	agent  *Agent
	clock  func() core.Instant
	mu     sync.Mutex
	ledger *core.Ledger
	index  core.Index
	sent   []core.Message
	ops    []core.Op // committed
	handed int
	late   int           // proposals dropped because they came too late
	delay  time.Duration // before an entry is looked at
	term   core.Term     // of the node, not of its entries
}

func (r *fakeRaft) Send(_ core.NodeName, m core.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent = append(r.sent, m)
}

func (r *fakeRaft) Term() core.Term {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.term
}

func (r *fakeRaft) setTerm(t core.Term) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.term = t
}

func (r *fakeRaft) TransferLeadership(core.NodeName) {
	r.mu.Lock()
	r.handed++
	r.mu.Unlock()
	go r.agent.Deliver(core.Deposed{})
}

func (r *fakeRaft) Propose(c core.Command, late func() bool) {
	r.mu.Lock()
	delay := r.delay
	r.mu.Unlock()
	go func() {
		time.Sleep(delay)
		if late() {
			r.mu.Lock()
			r.late++
			r.mu.Unlock()
			r.agent.Deliver(core.ProposalFailed{ID: c.ID, Known: true, Reason: "too late"})
			return
		}
		time.Sleep(2 * time.Millisecond)
		r.agent.Deliver(r.commit(c))
	}()
}

func (r *fakeRaft) commit(c core.Command) core.Committed {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.index++
	out := r.ledger.Apply(r.index, 1, c)
	r.ops = append(r.ops, c.Ops...)
	return core.Committed{Index: r.index, Term: 1, Command: c, Outcomes: out, View: r.ledger.View()}
}

// releases returns how many releases are committed.
func (r *fakeRaft) releases() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, op := range r.ops {
		if op.Release != nil {
			n++
		}
	}
	return n
}

func (r *fakeRaft) dropped() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.late
}

// rig is an agent on the only node of a cluster, n1, with its surroundings.
type rig struct {
	*Agent
	t      *testing.T
	kernel *fakeKernel
	raft   *fakeRaft
	cancel context.CancelFunc
	end    chan error
	edit   func(*core.Config) // changes the configuration that is offered

	mu    sync.Mutex
	slept time.Duration
	steps []step
	block chan struct{} // while it is set, the loop waits in Observe
	alive int
}

type step struct {
	at      core.Instant
	event   core.Event
	actions []core.Action
}

var (
	healthy = core.HealthChanged{Health: core.Health{State: core.Healthy}}
	failed  = core.HealthChanged{Health: core.Health{State: core.Failed, Reason: "connection refused"}}
)

func testConfig() core.Config {
	return core.Config{
		Version: 1, Cluster: "test", TTL: 300, Nodes: []core.NodeSpec{{Name: "n1"}},
		Groups: []core.GroupSpec{{Name: "writer", Role: core.Writer, Policy: core.AnyHealthy, Interface: "eth0",
			Addresses: []netip.Prefix{netip.MustParsePrefix("10.77.0.100/32")}}},
	}
}

// newRig makes an agent that is not running yet. It must be called inside a synctest bubble.
func newRig(t *testing.T) *rig {
	begin := time.Now()
	clock := func() core.Instant { return core.Instant(time.Since(begin)) + 1e9 }
	timing, err := core.ProfileTiming("lan")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, kernel: &fakeKernel{clock: clock}, raft: &fakeRaft{clock: clock, ledger: core.NewLedger(), term: 1}, end: make(chan error, 1)}
	r.Agent = New(Config{
		Self: "n1", Clock: clock, Binder: r.kernel, Announcer: r.kernel, Consensus: r.raft, Observe: r.observe,
		Machine: core.New(core.Options{Self: "n1", Incarnation: 7, Timing: timing, Start: clock(), Ready: clock()}),
		Asleep: func() time.Duration {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.slept
		},
		Alive: func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.alive++
		},
	})
	r.raft.agent = r.Agent
	return r
}

func (r *rig) observe(now core.Instant, ev core.Event, as []core.Action) {
	r.mu.Lock()
	r.steps = append(r.steps, step{now, ev, slices.Clone(as)})
	block := r.block
	r.mu.Unlock()
	if block != nil {
		<-block
	}
}

func (r *rig) setBlock(c chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.block = c
}

// start runs the agent and tells it what a daemon would.
func (r *rig) start() {
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() { r.end <- r.Run(ctx) }()
	cfg := testConfig()
	if r.edit != nil {
		r.edit(&cfg)
	}
	for _, ev := range []core.Event{
		core.ConfigOffered{Config: cfg}, core.VotersChanged{Voters: []core.NodeName{"n1"}},
		core.LinkChanged{Interface: "eth0", Up: true}, healthy, core.Elected{Term: 1},
	} {
		r.Deliver(ev)
	}
}

// stop ends the agent at once.
func (r *rig) stop() {
	r.cancel()
	<-r.end
}

// serve starts the agent and lets it serve the group.
func (r *rig) serve() {
	r.t.Helper()
	r.start()
	time.Sleep(time.Second)
	synctest.Wait()
	if !r.kernel.isBound() || r.kernel.count("announce") == 0 {
		r.t.Fatalf("not served after a second: %v", r.kernel.calls)
	}
}

// askedForRelease reports whether the holder has said that it is done with the address.
func (r *rig) askedForRelease() bool {
	for _, s := range r.seen() {
		for _, a := range s.actions {
			if send, ok := a.(core.Send); ok {
				if _, ok := send.Msg.(core.ReleaseRequest); ok {
					return true
				}
			}
		}
	}
	return false
}

// seen returns the steps so far.
func (r *rig) seen() []step {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.steps)
}

func (r *rig) fed() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.alive
}
