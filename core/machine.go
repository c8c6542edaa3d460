package core

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
)

// Options are what a machine is made from.
type Options struct {
	Self        NodeName
	Incarnation Incarnation
	Timing      Timing
	// Release is the version of the binary, for reports.
	Release string
	// Interfaces names the interface of a group where this node's differs from the group's.
	Interfaces map[GroupName]string
	// Fence says that the kernel of this node holds the leases too, by the reports that they rest on.
	Fence bool
	// Sets does the arithmetic of GTID sets for policy promote; without it nobody is chosen.
	Sets Sets
	// Unfenced says that the kernel of this node holds the leases by the lifetimes of addresses alone. A node with neither
	// has no kernel that holds anything: a witness, a dry run.
	Unfenced bool
	// DryRun marks a node that carries nothing out in its kernel.
	DryRun bool
	// Seed feeds the only chance in the machine: the numbers of commands and confirm rounds.
	Seed uint64
	// Start is the present instant. Until Ready this node takes no part: it may report, but not own.
	Start, Ready Instant
}

// Machine is Remora's decision maker on one node: the holder of what the ledger gives this node and, while this node is
// the Raft leader, the arbiter. It is pure: what it knows came in through Step, what it wants done goes out of it. It is
// not safe for concurrent use.
type Machine struct {
	opt   Options
	rng   *rand.Rand
	now   Instant
	out   []Action
	view  View
	fresh map[GroupName]GroupState // the newest known state of each group, from the ledger or from a notice
	names []GroupName              // the sorted keys of fresh

	health    Health
	hostUnfit string // why this machine may own nothing, if it may not
	links     map[string]link
	seen      map[netip.Addr]AddressSeen
	leader    NodeName
	voters    []NodeName
	peers     map[NodeName]*peer
	offered   *Config
	stopping  Instant // when shutdown was asked, 0 otherwise
	stopped   bool

	seq        Seq
	sent       [sentRing]sentReport
	nextReport Instant
	dirty      bool // something changed that the others should know now

	held    map[GroupName]*holding
	gaveUp  map[GroupName]Epoch // up to which epoch this process will not claim any more
	barred  map[GroupName]bar
	foreign map[GroupName]int // foreign claims counted
	waivers map[GroupName]waiver

	server localServer
	// executed is the last known executed set of each node's server, also of one that is dead by now; drained and caught
	// are the last words on switchovers.
	executed map[NodeName]string
	paces    map[NodeName]pace
	drained  map[GroupName]Drained
	caught   map[GroupName]CaughtUp

	arb arbiter
}

type link struct{ up, missing bool }

// peer is what the last reports of a node say, own ones included.
type peer struct {
	report       Report
	at           Instant // arrival of the last report
	heard        bool
	healthySince Instant
	failedAt     Instant
	failed       bool // it has failed at failedAt
}

// sentRing is how many of its own reports a node remembers. An ack for an older one renews nothing.
const sentRing = 128

type sentReport struct {
	seq Seq
	at  Instant
	// ttl is how long the report lives in the kernel.
	ttl time.Duration
}

// bar keeps this node from claiming a group for a while.
type bar struct {
	reason string
	until  Instant
}

// New returns a machine that knows nothing yet.
func New(opt Options) *Machine {
	return &Machine{
		opt: opt, rng: rand.New(rand.NewPCG(opt.Seed, uint64(opt.Incarnation))), now: opt.Start,
		fresh: map[GroupName]GroupState{}, links: map[string]link{}, seen: map[netip.Addr]AddressSeen{},
		peers: map[NodeName]*peer{}, held: map[GroupName]*holding{}, gaveUp: map[GroupName]Epoch{},
		barred: map[GroupName]bar{}, foreign: map[GroupName]int{}, waivers: map[GroupName]waiver{}, nextReport: opt.Start,
		executed: map[NodeName]string{}, paces: map[NodeName]pace{}, drained: map[GroupName]Drained{}, caught: map[GroupName]CaughtUp{},
		arb: newArbiter(),
	}
}

// Step tells the machine that ev has happened at now and returns what is to be done, in this order. The slice is valid
// until the next call. Time never goes back: an earlier now counts as the latest one.
//
// Before it looks at the event, the machine gives up what has run out. So whatever a process that was frozen finds in
// its mailbox after waking, giving up comes first.
func (m *Machine) Step(now Instant, ev Event) []Action {
	m.now = max(m.now, now)
	m.out = m.out[:0]
	m.lapse()
	m.handle(ev)
	m.tend()
	if !m.opt.Ready.After(m.now) {
		m.arbitrate()
	}
	m.report()
	m.finish()
	if !m.stopped {
		m.do(SetTimer{At: m.wake()})
	}
	return m.out
}

// After reports whether i is later than j.
func (i Instant) After(j Instant) bool { return i > j }

func (m *Machine) do(a Action) { m.out = append(m.out, a) }

func (m *Machine) handle(ev Event) {
	switch ev := ev.(type) {
	case Tick:
	case Received:
		m.received(ev)
	case Committed:
		m.committed(ev)
	case Restored:
		if m.arb.term != 0 && ev.View.Office != m.view.Office {
			m.leaveOffice()
		}
		m.adopt(ev.View)
	case ProposalFailed:
		m.proposalFailed(ev)
	case Elected:
		m.elected(ev)
	case Deposed:
		m.leaveOffice()
		m.arb.elected = 0
	case LeaderSeen:
		m.leader = ev.Leader
	case VotersChanged:
		m.voters = slices.Clone(ev.Voters)
	case HealthChanged:
		m.dirty = m.dirty || ev.Health.State != m.health.State || ev.Health.Writable != m.health.Writable
		m.health = ev.Health
		m.health.Executed = m.sincePromotion(ev.Health.Executed)
		m.server.looked(m.now, ev.Health)
	case LinkChanged:
		m.linkChanged(ev)
	case AddressSeen:
		m.addressSeen(ev)
	case ForeignClaim:
		m.foreignClaim(ev)
	case BindDone:
		m.bindDone(ev)
	case ExtendDone:
		m.extendDone(ev)
	case UnbindDone:
		m.unbindDone(ev)
	case ProbeDone:
		m.probeDone(ev)
	case FenceLost:
		m.fenceLost(ev)
	case HostChanged:
		m.dirty = m.dirty || ev.Unfit != m.hostUnfit
		m.hostUnfit = ev.Unfit
	case ClockJumped:
		m.giveUpAll("the clock jumped: " + ev.Reason)
	case ShutdownAsked:
		m.shutdownAsked()
	case MoveAsked:
		m.moveAsked(ev)
	case PauseAsked:
		m.pauseAsked(ev)
	case AdviceAsked:
		m.adviceAsked(ev)
	case RemarkAsked:
		m.remarkAsked(ev)
	case ConfigOffered:
		if m.offered == nil || ev.Config.Version >= m.offered.Version {
			m.offered = &ev.Config
		}
	default:
		m.handleServer(ev)
	}
}

func (m *Machine) received(ev Received) {
	switch msg := ev.Msg.(type) {
	case Report:
		m.reportReceived(ev.From, msg)
	case Confirm:
		if ev.Term != 0 && ev.Term == msg.Term && !m.opt.Ready.After(m.now) {
			m.do(Send{To: ev.From, Msg: Echo(msg)})
		}
	case Echo:
		m.echoed(ev.From, msg)
	case Ack:
		m.acked(msg)
	case Notice:
		m.noticed(msg)
	case ReleaseRequest:
		m.releaseRequested(ev.From, msg)
	default:
		m.serverMessage(ev.From, msg)
	}
}

func (m *Machine) reportReceived(from NodeName, r Report) {
	p := m.peers[from]
	if p == nil {
		p = &peer{}
		m.peers[from] = p
	}
	if p.heard && p.report.Incarnation == r.Incarnation && r.Seq <= p.report.Seq {
		return // overtaken on the way
	}
	switch {
	case r.Health.State == Failed && (!p.heard || p.report.Health.State != Failed):
		p.failed, p.failedAt = true, m.now
	case r.Health.State == Healthy && (!p.heard || p.report.Health.State != Healthy):
		p.healthySince = m.now
	}
	p.report, p.at, p.heard = r, m.now, true
	m.executedBy(from, r.Health.Executed)
	m.renewalAsked(from, r)
	m.watchMoves(from, r)
}

// committed adopts the new state of the ledger.
func (m *Machine) committed(ev Committed) {
	m.adopt(ev.View)
	m.arbiterCommitted(ev)
}

func (m *Machine) adopt(v View) {
	m.view = v
	for name, g := range v.Groups {
		if g.Index >= m.fresh[name].Index {
			m.fresh[name] = g
		}
	}
}

// noticed takes the leader's word that a state is committed. A state that is older than what is known changes nothing.
func (m *Machine) noticed(n Notice) {
	if n.State.Index > m.fresh[n.Group].Index {
		m.fresh[n.Group] = n.State
	}
}

// groups returns the names of all groups, sorted, so that a run can be repeated exactly. A group that is known stays so.
func (m *Machine) groups() []GroupName {
	if len(m.names) != len(m.fresh) {
		m.names = slices.Sorted(maps.Keys(m.fresh))
	}
	return m.names
}

// heldGroups returns the names of the groups that this node holds in some phase, sorted.
func (m *Machine) heldGroups() []GroupName {
	if len(m.held) == 0 {
		return nil
	}
	names := make([]GroupName, 0, len(m.held))
	for _, name := range m.groups() { // what is held is known
		if m.held[name] != nil {
			names = append(names, name)
		}
	}
	return names
}

// report tells the others what this node is and holds: at each heartbeat, and at once when it has changed.
func (m *Machine) report() {
	if m.now.Before(m.nextReport) && !m.dirty {
		return
	}
	m.dirty = false
	m.seq++
	m.sent[m.seq%sentRing] = sentReport{seq: m.seq, at: m.now, ttl: m.ttl()}
	m.nextReport = m.now.Add(m.opt.Timing.Heartbeat)
	if len(m.held) == 0 { // nothing is to be renewed, and a lease that rests on a report of this age is long enough
		m.nextReport = m.nextReport.Add(m.opt.Timing.Heartbeat)
	}
	r := Report{
		Incarnation: m.opt.Incarnation, Seq: m.seq, Health: m.health, Leaving: m.stopping != 0,
		Starting: m.opt.Ready.After(m.now), DryRun: m.opt.DryRun, Unfenced: m.opt.Unfenced, Release: m.opt.Release, Aside: m.server.aside,
	}
	if m.offered != nil {
		r.Config = m.offered.Version
	}
	for _, name := range m.heldGroups() {
		h := m.held[name]
		r.Holds = append(r.Holds, Holding{Group: name, Epoch: h.epoch, Phase: h.reported()})
	}
	for _, spec := range m.specs() {
		if why := m.blocked(spec); why != "" {
			r.Blocked = append(r.Blocked, Blocked{Group: spec.Name, Reason: why})
		}
		if m.foreignHere(spec.Name, spec) {
			r.Foreign = append(r.Foreign, spec.Name)
		}
	}
	if m.opt.Fence {
		m.do(Arm{Seq: m.seq, TTL: m.ttl(), Open: m.openings()})
	}
	var msg Message = r // one copy for all
	for _, to := range m.everyone() {
		m.do(Send{To: to, Msg: msg})
	}
}

// openings returns the groups that are served, with the reports that their leases rest on.
func (m *Machine) openings() []Opening {
	var open []Opening
	for _, name := range m.heldGroups() {
		if h := m.held[name]; h.phase == bound {
			open = append(open, Opening{Group: name, Addresses: h.spec.Addresses, Report: h.rests})
		}
	}
	return open
}

// specs returns all groups that a report speaks of: those of the ledger, and those of the file that are not in it yet. A
// node hears of a new group only after the arbiter may have granted it, and must have said by then what stands against it.
func (m *Machine) specs() []GroupSpec {
	var specs []GroupSpec
	for _, name := range m.groups() {
		specs = append(specs, m.fresh[name].Spec)
	}
	if m.offered != nil {
		for _, spec := range m.offered.Groups {
			if _, known := m.fresh[spec.Name]; !known {
				specs = append(specs, spec)
			}
		}
	}
	return specs
}

// sentAt returns when the report seq was sent.
func (m *Machine) sentAt(seq Seq) (Instant, bool) {
	s := m.sent[seq%sentRing]
	return s.at, s.seq == seq && seq != 0
}

// sentFor returns when the report seq was sent, if a lease of length ttl may rest on it. With a fence it may not when the
// report lives longer in the kernel than that: the length of leases has just been shortened.
func (m *Machine) sentFor(seq Seq, ttl time.Duration) (Instant, bool) {
	at, known := m.sentAt(seq)
	return at, known && (!m.opt.Fence || m.sent[seq%sentRing].ttl <= ttl)
}

// everyone returns all nodes of the cluster, this one too: what a node tells the others it tells itself in the same way.
// Before the ledger is known, the configuration file says who they are.
func (m *Machine) everyone() []NodeName {
	nodes := m.view.Config.Nodes
	if len(nodes) == 0 && m.offered != nil {
		nodes = m.offered.Nodes
	}
	names := make([]NodeName, 0, len(nodes))
	for _, n := range nodes {
		names = append(names, n.Name)
	}
	return names
}

// recent reports whether a peer was heard so lately that its word counts: four heartbeats, which are two reports of a node
// that holds nothing.
func (m *Machine) recent(p *peer) bool {
	return p != nil && p.heard && m.now.Sub(p.at) <= 4*m.opt.Timing.Heartbeat
}

// wake returns when the machine next has something to do by itself.
func (m *Machine) wake() Instant {
	at := m.nextReport
	earlier := func(i Instant) {
		if i != 0 && i.Before(at) {
			at = i
		}
	}
	if m.opt.Ready.After(m.now) {
		earlier(m.opt.Ready)
	}
	for _, h := range m.held {
		earlier(h.wake(m.opt.Timing, m.extendEvery()))
	}
	m.serverWake(earlier)
	m.arbiterWake(earlier)
	if !at.After(m.now) {
		at = m.now.Add(time.Millisecond)
	}
	return at
}

func (m *Machine) shutdownAsked() {
	if m.stopping != 0 {
		return
	}
	m.stopping, m.dirty = max(m.now, 1), true
	m.giveUpAll("the daemon is stopping")
}

// shutdownLimit bounds an orderly end: two leases, which are over by then on everybody's clock, and a second.
func (m *Machine) shutdownLimit() time.Duration { return 2*m.ttl() + time.Second }

// ttl is the length of leases: the ledger's, as soon as it has one.
func (m *Machine) ttl() time.Duration {
	if t := m.view.Config.TTL; t > 0 {
		return t.Duration()
	}
	return m.opt.Timing.TTL
}

// finish ends the machine once nothing is held and leadership is handed on, or when that takes too long. Addresses that
// can not be removed keep the process alive.
func (m *Machine) finish() {
	if m.stopping == 0 || m.stopped {
		return
	}
	late := m.now.Sub(m.stopping) > m.shutdownLimit()
	for _, h := range m.held {
		if h.phase != releasing || !late {
			return
		}
	}
	if m.arb.elected != 0 && !late {
		m.handOver()
		return
	}
	m.stopped = true
	m.do(Stopped{})
}
