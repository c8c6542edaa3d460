package consensus

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/agent"
)

// machine is one machine of the cluster. Only the test's goroutine starts and ends its process.
type machine struct {
	c      *vCluster
	id     int
	name   core.NodeName
	dir    string
	tls    TLSFiles
	drive  *drive
	clock  vClock
	kernel *vKernel

	proc    *process // nil while none runs
	last    *process // the last one
	healthy bool
	// failedOnce is set once the disk has failed this process. A lock is then held while the log is opened anew, so nothing
	// on this disk may stand still any more.
	failedOnce bool
	// held is until when Raft's news do not get through to the machine's agent. Datagrams do.
	held atomic.Int64
}

// process is one run of the daemon.
type process struct {
	m     *machine
	inc   core.Incarnation
	nic   *nic
	disk  opened
	agent *agent.Agent
	core  *core.Machine // used by the agent's loop
	grips bool          // it had something in its hands after the last step
	node  atomic.Pointer[Node]
	ctx   context.Context
	stop  context.CancelFunc
	dead  atomic.Bool
	ended chan struct{}

	mu   sync.Mutex
	news []core.Event
	wake chan struct{}

	office atomic.Uint64 // the term of the process' own last office
	report atomic.Uint64 // the number of its last report
}

func (p *process) alive() bool { return !p.dead.Load() }

// openLog completes the host of a node.
func (p *process) openLog(string) (backend, error) {
	if p.m.c.broken.believes {
		return credulous{p.disk, p}, nil
	}
	return p.disk, nil
}

type vHost struct {
	*nic
	*process
}

// boot starts a process, unless one runs.
func (m *machine) boot() {
	if m.proc != nil {
		return
	}
	p := &process{m: m, inc: core.Incarnation(m.c.dice.Uint64() | 1), nic: &nic{f: m.c.fabric, self: m.id},
		disk: opened{d: m.drive, killed: make(chan struct{})}, ended: make(chan struct{}), wake: make(chan struct{}, 1)}
	p.ctx, p.stop = context.WithCancel(context.Background())
	before := m.last
	m.proc, m.last = p, p
	m.c.trace(m, "boots")
	seed, healthy, config := m.c.dice.Uint64(), m.healthy, m.c.config
	go func() {
		defer close(p.ended)
		if before != nil {
			<-before.ended
		}
		p.work(seed, healthy, config)
	}()
}

// die ends the process at once. Without power the machine's peers are told nothing, and its kernel forgets everything.
func (m *machine) die(power bool) {
	p := m.proc
	if p == nil {
		return
	}
	m.proc = nil
	p.dead.Store(true)
	close(p.disk.killed)
	m.drive.trips(nil)
	p.nic.vanish(power)
	p.stop()
	if power {
		m.c.trace(m, "is killed")
		return
	}
	m.c.trace(m, "loses power")
	m.kernel.clear()
}

// work is what the daemon does.
func (p *process) work(seed uint64, healthy bool, config core.Config) {
	m, c := p.m, p.m.c
	time.Sleep(time.Millisecond)
	if !p.alive() {
		return
	}
	m.kernel.clear()
	longest, err := LongestLease(m.dir)
	if err != nil {
		c.oracle.fail(sane, "%s: %v", m.name, err)
	}
	longest = max(longest, c.timing.TTL)
	start := m.clock.now()
	ready := start.Add(longest + core.Margin(longest))
	p.core = core.New(core.Options{Self: m.name, Incarnation: p.inc, Timing: c.timing, Seed: seed, Fence: true, Start: start, Ready: ready})
	p.agent = agent.New(agent.Config{Self: m.name, Machine: p.core, Clock: m.clock.now, Binder: vBinder{m.kernel, p}, Announcer: vBinder{m.kernel, p},
		Consensus: vConsensus{p}, Observe: p.observe})
	n, err := Open(Config{Self: m.name, Cluster: testCluster, Peers: config.Nodes, StateDir: m.dir, Timing: c.timing, TLS: m.tls,
		Ledger: core.NewLedger(), Incarnation: p.inc, Deliver: p.deliver, DeliverDatagram: p.deliverDatagram,
		Logger: vLogger(m), host: vHost{p.nic, p}})
	if err != nil {
		if p.alive() {
			c.oracle.fail(sane, "%s does not open: %v", m.name, err)
		}
		return
	}
	p.node.Store(n)
	var wg sync.WaitGroup
	wg.Go(func() { _ = p.agent.Run(p.ctx) })
	wg.Go(p.tell)
	p.agent.Deliver(core.ConfigOffered{Config: config})
	p.agent.Deliver(core.LinkChanged{Interface: "eth0", Up: true})
	p.agent.Deliver(health(healthy))
	if sleep(p.ctx, time.Until(m.clock.when(ready))) {
		if err := n.Start(p.ctx); err != nil && p.alive() {
			c.oracle.fail(sane, "%s does not start: %v", m.name, err)
		}
	}
	select {
	case <-p.ctx.Done():
	case err := <-n.Failed():
		if p.alive() {
			c.oracle.fail(sane, "%s can not go on: %v", m.name, err)
		}
		<-p.ctx.Done()
	}
	if err := n.Shutdown(context.Background()); err != nil {
		c.trace(m, "ends with: %v", err)
	}
	wg.Wait()
}

func vLogger(m *machine) *slog.Logger {
	if os.Getenv("REMORA_TEST_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", m.name)
}

func health(ok bool) core.Event {
	if ok {
		return core.HealthChanged{Health: core.Health{State: core.Healthy}}
	}
	return core.HealthChanged{Health: core.Health{State: core.Failed, Reason: "connection refused"}}
}

// setHealth lets the machine's MySQL fail or come back.
func (m *machine) setHealth(ok bool) {
	m.healthy = ok
	m.c.trace(m, "has a healthy server: %t", ok)
	if m.proc != nil && m.proc.node.Load() != nil {
		m.proc.agent.TryDeliver(health(ok))
	}
}

// hold keeps Raft's news from the agent for a while.
func (m *machine) hold(span time.Duration) { m.held.Store(time.Now().Add(span).UnixNano()) }

// deliver takes the events that must not be lost, and has them told in order.
func (p *process) deliver(ev core.Event) {
	switch ev := ev.(type) {
	case core.Committed:
		p.m.c.oracle.committed(p, ev)
	case core.Restored:
		p.m.c.oracle.restored(p, ev.View)
	case core.Elected, core.Deposed:
		p.m.c.trace(p.m, "%T %+v", ev, ev)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.news = append(p.news, p.m.c.broken.told(p, ev)...)
	poke(p.wake)
}

// tell hands the news on, late if they are held up.
func (p *process) tell() {
	for {
		p.mu.Lock()
		var ev core.Event
		if len(p.news) > 0 {
			ev, p.news = p.news[0], p.news[1:]
		}
		p.mu.Unlock()
		if ev == nil {
			select {
			case <-p.wake:
				continue
			case <-p.ctx.Done():
				return
			}
		}
		if !sleep(p.ctx, time.Until(time.Unix(0, p.m.held.Load()))) {
			return
		}
		p.agent.Deliver(ev)
	}
}

func (p *process) deliverDatagram(ev core.Event) bool {
	if !p.alive() {
		return false
	}
	for _, ev := range p.m.c.broken.told(p, ev) {
		if !p.agent.TryDeliver(ev) {
			return false
		}
	}
	return true
}

// observe sees each step of the machine.
func (p *process) observe(now core.Instant, ev core.Event, actions []core.Action) {
	p.belief(now, ev)
	for _, a := range actions {
		switch a := a.(type) {
		case core.Arm:
			p.report.Store(uint64(a.Seq))
		case core.Send:
			if ack, ok := a.Msg.(core.Ack); ok && a.To == p.m.name {
				p.m.c.oracle.acked(p.m, ack)
			}
		case core.Note:
			p.m.c.trace(p.m, "%s epoch %d: %s (%s)", a.Group, a.Epoch, a.Text, a.Reason)
		}
	}
}

// belief tells the oracle what the machine believes to hold, after steps that may have changed that.
func (p *process) belief(now core.Instant, ev core.Event) {
	if r, ok := ev.(core.Received); ok {
		switch r.Msg.(type) {
		case core.Report, core.Confirm, core.Echo:
			return
		}
	}
	before := p.grips
	p.grips = p.core.Grip() != core.GripNone
	if !before && !p.grips {
		return
	}
	for _, g := range p.core.Status(now).Groups {
		until := time.Time{}
		if g.LeaseLeft > 0 && (g.Phase == core.Claiming.String() || g.Phase == core.Serving.String()) {
			until = p.m.clock.when(now.Add(g.LeaseLeft))
		}
		p.m.c.oracle.holds(p, g.Name, until)
	}
}

// vConsensus is the node as the agent sees it.
type vConsensus struct{ p *process }

func (v vConsensus) Send(to core.NodeName, msg core.Message) {
	c := v.p.m.c
	msg = c.broken.sent(v.p, msg)
	if ack, ok := msg.(core.Ack); ok {
		c.oracle.acked(c.named(to), ack)
	}
	v.p.node.Load().Send(to, msg)
}

func (v vConsensus) Propose(cmd core.Command, notAfter func() bool) {
	v.p.node.Load().Propose(v.p.m.c.broken.proposed(cmd), notAfter)
}

func (v vConsensus) TransferLeadership(to core.NodeName) { v.p.node.Load().TransferLeadership(to) }
func (v vConsensus) Term() core.Term                     { return v.p.node.Load().Term() }
