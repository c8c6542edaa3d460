package core

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Reading is what a group of role reader asks for. A duration of zero means its default.
type Reading struct {
	// MaxLag is how old what a replica shows may be, 30 s by default. Servers tell their lag in whole seconds, rounded down.
	MaxLag Millis `json:"max_lag_ms,omitempty"`
	// AllowPrimary lets a writable server that replicates from nobody serve while no replica can.
	AllowPrimary bool `json:"allow_primary,omitempty"`
	// BalanceAfter is how long a server must have been fit before an address is moved to it for balance alone, 30 s by default.
	BalanceAfter Millis `json:"balance_after_ms,omitempty"`
}

func (r Reading) maxLag() time.Duration { return cmp.Or(r.MaxLag.Duration(), 30*time.Second) }

func (r Reading) balanceAfter() time.Duration {
	return cmp.Or(r.BalanceAfter.Duration(), 30*time.Second)
}

// age is how old what a replica shows is: its lag while it replicates, and since it stopped as much more as has passed. So
// the death of a source does not put all its replicas out at once.
type age struct {
	known bool
	lag   time.Duration
	since Instant // since when it does not replicate, 0 if it does
}

// looked takes note of a look at the server.
func (a *age) looked(now Instant, h Health) {
	switch {
	case h.State == Failed:
		*a = age{}
	case h.Replicating == Yes && h.Lag >= 0:
		*a = age{known: true, lag: h.behindNow()}
	case a.known && a.since == 0:
		a.since = max(now, 1)
	}
}

func (a age) at(now Instant) time.Duration {
	if a.since == 0 {
		return a.lag
	}
	return a.lag + now.Sub(a.since)
}

// readable returns why a healthy server can not serve readers, or nothing. There is no difference between one that serves
// already and a newcomer: how old the data is may be known although whether it replicates is not.
//
// What nearly is too old is not given to anybody any more: by early, 0 for the node itself, a server that has stopped
// replicating counts as older than it is, since the arbiter hears of that later than the node.
func (r Reading) readable(now Instant, h Health, a age, early time.Duration) string {
	limit := r.maxLag()
	if a.since == 0 {
		early = 0
	}
	switch {
	case h.Source == "" && h.Replicating == Unknown:
		return "it is not known whether MySQL replicates"
	case h.Source == "" && r.AllowPrimary && h.Writable == Yes:
		return ""
	case h.Source == "" && r.AllowPrimary:
		return "MySQL replicates from nobody and is not writable, so what it shows may be old"
	case h.Source == "":
		return "MySQL is no replica, and allow_primary is not set"
	case !a.known:
		return fmt.Sprintf("MySQL has not been seen to replicate from %s, so nobody knows how old what it shows is", h.Source)
	case a.at(now)+early <= limit:
		return ""
	case a.since != 0:
		return fmt.Sprintf("MySQL has not replicated from %s for so long that it is more than max_lag, %v, behind", h.Source, limit)
	}
	return fmt.Sprintf("MySQL is %v behind, and max_lag is %v", a.lag, limit)
}

// writesApart returns why readers must be kept from a server, or nothing: where Remora promotes, a server that may be written
// to is reached by way of the group that it is promoted for and by no other address.
func writesApart(promoted GroupState, h Health, owns bool) string {
	if promoted.Spec.Policy != Promote || owns || h.Writable == No {
		return ""
	}
	return fmt.Sprintf("MySQL is not known to be read-only, and the node does not own group %s", promoted.Spec.Name)
}

// unreadable returns why the local server can not serve a group of role reader, or nothing.
func (m *Machine) unreadable(spec GroupSpec) string {
	if m.server.aside != "" {
		return "its server is set aside: " + m.server.aside
	}
	p := m.promoted()
	h := m.held[p.Spec.Name]
	if why := writesApart(p, m.health, h != nil && h.claiming() && !m.server.demote); why != "" {
		return why
	}
	return spec.Reading.readable(m.now, m.health, m.age, 0)
}

// peerUnreadable returns why the server of another node, by its reports, can not serve a group of role reader, or nothing.
func (m *Machine) peerUnreadable(n NodeName, spec GroupSpec) string {
	p := m.peers[n]
	if p.report.Aside != "" {
		return "its server is set aside: " + p.report.Aside
	}
	w := m.promoted()
	if why := writesApart(w, p.report.Health, w.Owner == n && m.serves(n, w.Spec.Name, w.Epoch)); why != "" {
		return why
	}
	return spec.Reading.readable(m.now, p.report.Health, p.age, newcomerEarly)
}

// gatheringReaders reports whether an arbiter new in office still waits until all nodes can say what their servers are, so that
// a cluster that starts is spread from the beginning.
func (m *Machine) gatheringReaders() bool {
	if m.now.Sub(m.arb.since) >= 2*m.opt.Timing.Heartbeat {
		return false
	}
	return slices.ContainsFunc(m.view.Config.Nodes, func(n NodeSpec) bool {
		p := m.peers[n.Name]
		return !n.Witness && (!m.recent(p) || p.report.Starting || p.report.Health.State == HealthUnknown)
	})
}

// isReplica reports whether a node's server replicates from somebody, or did when it was last heard.
func (m *Machine) isReplica(n NodeName) bool {
	p := m.peers[n]
	return p != nil && p.report.Health.Source != ""
}

// newcomerEarly is how much earlier than its owner the arbiter calls a server too old that has stopped replicating.
const newcomerEarly = time.Second

// What follows is the arbiter's part: it spreads the addresses of a pool, which are a group each, over the nodes.

// poolWatch is what the arbiter knows of the nodes that serve a pool. Like all of the arbiter it is forgotten with the office.
type poolWatch struct {
	looked Instant
	fit    map[NodeName]Instant // since when, for those that could serve it now
	moved  Instant              // when an address was moved last for balance
}

const (
	// poolLook is how often the arbiter looks at most whether a pool is in balance.
	poolLook = 500 * time.Millisecond
	// balanceAgain spaces the moves for balance of one pool.
	balanceAgain = time.Second
)

// loads counts the addresses that each node has or is about to get, of a pool and of all pools, without those of one group.
func (m *Machine) loads(pool, without GroupName) (own, all map[NodeName]int) {
	own, all = map[NodeName]int{}, map[NodeName]int{}
	for name, g := range m.view.Groups {
		at := g.Owner
		if to := m.destination(g); to != "" {
			at = to
		}
		if to, placing := m.arb.placing[name]; placing {
			at = to
		}
		if g.Spec.Pool == "" || g.Retired || at == "" || name == without {
			continue
		}
		all[at]++
		if g.Spec.Pool == pool {
			own[at]++
		}
	}
	return own, all
}

// rankReaders sorts the candidates for an address of a pool, the best first: wanted by an operator, replicas, those that have
// not failed of late, those that replicate now, fewest addresses of the pool, fewest of all, highest priority, name.
func (m *Machine) rankReaders(name GroupName, g GroupState, cs []candidate) {
	own, all := m.loads(g.Spec.Pool, name)
	slices.SortFunc(cs, func(a, b candidate) int {
		return cmp.Or(-compareBool(a.wanted, b.wanted),
			-compareBool(m.isReplica(a.node), m.isReplica(b.node)),
			cmp.Compare(a.cooling, b.cooling),
			-compareBool(m.replicates(a.node), m.replicates(b.node)),
			cmp.Compare(own[a.node], own[b.node]), cmp.Compare(all[a.node], all[b.node]),
			-cmp.Compare(a.priority, b.priority), cmp.Compare(a.node, b.node))
	})
}

func (m *Machine) replicates(n NodeName) bool { return m.peers[n].report.Health.Replicating == Yes }

// balance moves an address of each pool that is out of balance to where it belongs, one at a time.
func (m *Machine) balance() {
	var done []GroupName
	for _, name := range m.groups() {
		pool := m.view.Groups[name].Spec.Pool
		if pool == "" || slices.Contains(done, pool) {
			continue
		}
		done = append(done, pool)
		w := m.arb.pools[pool]
		if w == nil {
			w = &poolWatch{fit: map[NodeName]Instant{}}
			m.arb.pools[pool] = w
		}
		if w.looked != 0 && m.now.Sub(w.looked) < poolLook {
			continue
		}
		w.looked = max(m.now, 1)
		members := m.members(pool)
		m.lookAtPool(w, members)
		if w.moved != 0 && m.now.Sub(w.moved) < balanceAgain || !m.settledPool(members) {
			continue
		}
		m.balancePool(w, pool, members)
	}
}

// members returns the groups of a pool that the configuration has, sorted.
func (m *Machine) members(pool GroupName) []GroupName {
	var names []GroupName
	for _, name := range m.groups() {
		if g := m.view.Groups[name]; g.Spec.Pool == pool && !g.Retired {
			names = append(names, name)
		}
	}
	return names
}

// lookAtPool notes since when each node could take an address of the pool.
func (m *Machine) lookAtPool(w *poolWatch, members []GroupName) {
	for _, n := range m.view.Config.Nodes {
		fit := !n.Witness && slices.ContainsFunc(members, func(name GroupName) bool {
			g := m.view.Groups[name]
			return !g.Paused && m.unqualified(n, name, g) == ""
		}) && (m.replicates(n.Name) || !m.isReplica(n.Name))
		if _, was := w.fit[n.Name]; !fit {
			delete(w.fit, n.Name)
		} else if !was {
			w.fit[n.Name] = m.now
		}
	}
}

// settledPool reports whether every address of a pool that has an owner is served, and none is on its way.
func (m *Machine) settledPool(members []GroupName) bool {
	for _, name := range members {
		g := m.view.Groups[name]
		_, busy := m.arb.inflight[name]
		if busy || m.destination(g) != "" || g.Next != nil || g.Owner != "" && !m.serves(g.Owner, name, g.Epoch) {
			return false
		}
	}
	return true
}

// balancePool proposes one move, if there is one that the balance asks for: away from a primary as soon as a replica can serve,
// else from the node with the most addresses to the one with the fewest, if they are two or more apart.
func (m *Machine) balancePool(w *poolWatch, pool GroupName, members []GroupName) {
	own, _ := m.loads(pool, "")
	var best Move
	most := 0
	for _, name := range members {
		g := m.view.Groups[name]
		to := m.steadiest(w, name, g)
		if to == "" {
			continue
		}
		apart, why := own[g.Owner]-own[to], fmt.Sprintf("%s has %d addresses of %s, and %s has %d", g.Owner, own[g.Owner], pool, to, own[to])
		if m.isReplica(to) && !m.isReplica(g.Owner) {
			apart, why = max(apart, 0)+len(members)+1, fmt.Sprintf("%s is no replica, and %s is", g.Owner, to)
		} else if m.isReplica(to) != m.isReplica(g.Owner) {
			continue
		}
		if apart >= 2 && apart > most {
			best, most = Move{Group: name, Epoch: g.Epoch, To: to, Reason: cut(ReasonBalance+why, MaxReason)}, apart
		}
	}
	if most > 0 {
		w.moved = max(m.now, 1)
		m.arb.inflight[best.Group] = m.propose(0, Op{Move: &best})
	}
}

// steadiest returns the best node other than the owner that has been fit for long enough to take an address, or nothing.
func (m *Machine) steadiest(w *poolWatch, name GroupName, g GroupState) NodeName {
	if g.Owner == "" || g.Paused {
		return ""
	}
	cs, _ := m.candidates(name, g)
	for _, c := range cs {
		since, fit := w.fit[c.node]
		if fit && c.node != g.Owner && c.cooling == 0 && m.now.Sub(since) >= g.Spec.Reading.balanceAfter() {
			return c.node
		}
	}
	return ""
}
