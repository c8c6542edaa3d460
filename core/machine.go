package core

import (
	"iter"
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

	health     Health
	unwritable Instant // since when the local server is known to be read-only, 0 if it is not
	hostUnfit  string  // why this machine may own nothing, if it may not
	links      map[string]link
	seen       map[netip.Addr]AddressSeen
	marked     int // of seen, how many are present and ours
	leader     NodeName
	voters     []NodeName
	peers      map[NodeName]*peer
	offered    *Config
	interfaces map[GroupName]string // of groups on this node, by its file; that of "" is for groups which the file does not have
	stopping   Instant              // when shutdown was asked, 0 otherwise
	stopped    bool

	seq        Seq
	sent       [sentRing]sentReport
	nextReport Instant
	ackedSeq   Seq       // of the last report that was acked
	toldAll    bool      // the last report went to all nodes, and not to the leader alone
	dirty      bool      // something changed that the others should know now
	riding     bool      // this step takes part in a confirm round
	told       []Holding // in the last report
	timer      Action    // the last SetTimer

	held    map[GroupName]*holding
	gaveUp  map[GroupName]Epoch // up to which epoch this process will not claim any more
	ended   map[groupAt]Epoch   // of the newest holding of which its node has said that it is over
	barred  map[GroupName]bar
	foreign map[GroupName]conflicts
	waivers map[GroupName]waiver

	server localServer
	age    age // of what the local server shows
	behind behind
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
	steady       Instant // since when its reports come without a long pause
	heard        bool
	healthySince Instant
	unwritable   Instant // since when its server is said to be read-only, 0 if it is not
	failedAt     Instant
	failed       bool // it has failed at failedAt
	age          age  // of what its server shows
}

// bar keeps this node from claiming a group for a while.
type bar struct {
	reason string
	until  Instant
}

// conflicts are the claims of others to a group's addresses that were seen while this node served it.
type conflicts struct {
	count int
	last  Instant
}

// New returns a machine that knows nothing yet.
func New(opt Options) *Machine {
	return &Machine{
		opt: opt, rng: rand.New(rand.NewPCG(opt.Seed, uint64(opt.Incarnation))), now: opt.Start,
		fresh: map[GroupName]GroupState{}, links: map[string]link{}, seen: map[netip.Addr]AddressSeen{},
		peers: map[NodeName]*peer{}, held: map[GroupName]*holding{}, gaveUp: map[GroupName]Epoch{}, ended: map[groupAt]Epoch{},
		barred: map[GroupName]bar{}, foreign: map[GroupName]conflicts{}, waivers: map[GroupName]waiver{}, nextReport: opt.Start,
		executed: map[NodeName]string{}, paces: map[NodeName]pace{}, drained: map[GroupName]Drained{}, caught: map[GroupName]CaughtUp{},
		arb: newArbiter(), health: Health{Measured: -1},
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
		m.setTimer(m.wake())
	}
	return m.out
}

// After reports whether i is later than j.
func (i Instant) After(j Instant) bool { return i > j }

func (m *Machine) do(a Action) { m.out = append(m.out, a) }

// setTimer asks for a Tick. Most steps ask for the one that the step before has asked for, and need no memory to do so.
func (m *Machine) setTimer(at Instant) {
	if want := (SetTimer{At: at}); m.timer != Action(want) {
		m.timer = want
	}
	m.do(m.timer)
}

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
		m.dirty = m.dirty || ev.Leader != "" && ev.Leader != m.leader // it may have heard every second report only
		m.leader = ev.Leader
	case VotersChanged:
		m.voters = slices.Clone(ev.Voters)
	case HealthChanged:
		m.dirty = m.dirty || ev.Health.State != m.health.State || ev.Health.Writable != m.health.Writable ||
			ev.Health.MHAActs != m.health.MHAActs
		ev.Health.Measured = m.health.Measured
		m.age.looked(m.now, ev.Health)
		m.server.looked(m.now, m.health, ev.Health)
		m.health = ev.Health
		m.unwritable = unwritableFrom(m.unwritable, m.now, ev.Health.Writable)
		m.health.Executed = m.sincePromotion(ev.Health.Executed)
	case LinkChanged:
		m.linkChanged(ev)
	case AddressesSeen:
		m.addressesSeen(ev)
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
			m.offered, m.interfaces = &ev.Config, ev.Interfaces
		}
	default:
		m.handleServer(ev)
	}
}

func (m *Machine) received(ev Received) {
	switch msg := ev.Msg.(type) {
	case Report:
		m.reportReceived(ev.From, msg, ev.Term)
	case Confirm:
		if ev.Term != 0 && ev.Term == msg.Term && !m.opt.Ready.After(m.now) {
			m.do(Send{To: ev.From, Msg: Echo(msg)})
			m.riding = true
		}
	case Echo:
		m.echoed(ev.From, msg)
	case Ack:
		m.acked(msg)
	case Notice:
		m.noticed(msg)
	case ReleaseRequest:
		m.releaseHeard(ev.From, msg)
	default:
		m.serverMessage(ev.From, msg)
	}
}

func (m *Machine) reportReceived(from NodeName, r Report, own Term) {
	p := m.peers[from]
	if p == nil {
		p = &peer{}
		m.peers[from] = p
	}
	if p.heard && p.report.Incarnation == r.Incarnation && r.Seq <= p.report.Seq {
		return // overtaken on the way
	}
	switch {
	case r.Health.State == Failed:
		m.serverFailed(p)
	case r.Health.State == Healthy && (!p.heard || p.report.Health.State != Healthy):
		p.healthySince = m.now
	}
	if !p.heard || m.now.Sub(p.at) > max(looksAfter/2, 2*m.opt.Timing.Heartbeat) {
		p.steady = m.now
	}
	p.report, p.at, p.heard = r, m.now, true
	p.unwritable = unwritableFrom(p.unwritable, m.now, r.Health.Writable)
	p.age.looked(m.now, r.Health)
	m.executedBy(from, r.Health.Executed, r.Health.State)
	m.renewalAsked(from, r, own)
	m.watchMoves(from, r)
}

// serverFailed notes that a node's server has failed, and when that became known. Why is for the node's report to say: what its last
// one gave as the reason was that of another state.
func (m *Machine) serverFailed(p *peer) {
	if !p.heard || p.report.Health.State != Failed {
		p.failed, p.failedAt = true, m.now
	}
	p.report.Health.State, p.report.Health.Reason = Failed, ""
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

// noticed takes the leader's word that a state is committed. A state that is older than what is known changes nothing, nor
// does one of addresses that are not known.
func (m *Machine) noticed(n Notice) {
	known := m.fresh[n.Group]
	if n.State.Index <= known.Index {
		return
	}
	if g, ok := n.whole(known); ok {
		m.fresh[n.Group] = g
	}
}

// groups returns the names of all groups, sorted, so that a run can be repeated exactly. A group that is known stays so.
func (m *Machine) groups() []GroupName {
	if len(m.names) != len(m.fresh) {
		m.names = slices.Sorted(maps.Keys(m.fresh))
	}
	return m.names
}

// holdings goes through what this node holds in some phase, sorted by group. It needs no memory: each step does so twice.
func (m *Machine) holdings() iter.Seq[*holding] {
	return func(yield func(*holding) bool) {
		if len(m.held) == 0 {
			return
		}
		for _, name := range m.groups() { // what is held is known
			if h := m.held[name]; h != nil && !yield(h) {
				return
			}
		}
	}
}

// everyone goes through all nodes of the cluster, this one too: what a node tells the others it tells itself in the same
// way.
func (m *Machine) everyone() iter.Seq[NodeName] {
	return func(yield func(NodeName) bool) {
		nodes := m.nodes()
		for i := range nodes {
			if !yield(nodes[i].Name) {
				return
			}
		}
	}
}

// nodes returns the nodes of the cluster. Before the ledger is known, the configuration file says who they are.
func (m *Machine) nodes() []NodeSpec {
	if nodes := m.view.Config.Nodes; len(nodes) > 0 || m.offered == nil {
		return nodes
	}
	return m.offered.Nodes
}

// recent reports whether a peer was heard so lately that its word counts: four heartbeats, which are about two reports of a
// node that holds nothing. Who does not lead hears every second one.
func (m *Machine) recent(p *peer) bool {
	long := 4 * m.opt.Timing.Heartbeat
	if m.arb.elected == 0 {
		long *= 2
	}
	return p != nil && p.heard && m.now.Sub(p.at) <= long
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
		g := m.fresh[h.group]
		earlier(h.wake(g.Move, m.opt.Timing, m.extendEvery()))
		if h.draining && h.stopBy.After(m.now) {
			earlier(h.stopBy)
		}
		if until := m.keptUntil(g); until.After(m.now) {
			earlier(until)
		}
	}
	m.serverWake(earlier)
	m.arbiterWake(earlier)
	if !at.After(m.now) {
		at = m.now.Add(time.Millisecond)
	}
	return at
}

// ttl is the length of leases: the ledger's, as soon as it has one.
func (m *Machine) ttl() time.Duration {
	if t := m.view.Config.TTL; t > 0 {
		return t.Duration()
	}
	return m.opt.Timing.TTL
}
