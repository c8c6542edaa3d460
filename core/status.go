package core

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Status is what a node knows of the cluster, for people.
type Status struct {
	View     View
	Leader   NodeName
	InOffice bool
	Voters   []NodeName
	Self     Report
	Groups   []GroupStatus
	Nodes    []NodeStatus
	Problems []Finding
}

// GroupStatus is a group as this node sees it.
type GroupStatus struct {
	Name  GroupName
	State GroupState
	// Phase is this node's own holding, empty if it has none. Held is its epoch.
	Phase string
	Held  Epoch
	// LeaseLeft is how long this node may still answer; zero if it does not hold the group, or not yet.
	LeaseLeft time.Duration
	// BoundHere lists the group's addresses that are bound on this node, by whomever.
	BoundHere []netip.Addr
	// Conflicts counts the claims of others to the group's addresses that were seen while this node served it.
	// They are counted as long as the process lives.
	Conflicts int
	// LastConflict is how long ago the last of them was seen, 0 if there was none.
	LastConflict time.Duration
}

// ConflictFor is how long after the last claim of somebody else to a group's address the status still tells of it: long enough
// that whoever looks at it every few minutes sees it.
const ConflictFor = 10 * time.Minute

// Contested reports whether somebody else has claimed an address of the group lately.
func (g GroupStatus) Contested() bool { return g.Conflicts > 0 && g.LastConflict < ConflictFor }

// NodeStatus is a node as its last report shows it.
type NodeStatus struct {
	Spec NodeSpec
	// Heard is false as long as no report has come.
	Heard     bool
	Reachable bool
	Age       time.Duration // since the last report
	Voter     bool
	Report    Report
	// Unfit says for each group that the node could not serve now why.
	Unfit map[GroupName]string
}

// Finding is a thing that is not as it should be.
type Finding struct {
	Subject string
	Text    string
}

// Status returns a picture of the present state. It changes nothing.
func (m *Machine) Status(now Instant) Status {
	m.now = max(m.now, now)
	s := Status{View: m.view.clone(), Leader: m.leader, InOffice: m.arb.term != 0, Voters: slices.Clone(m.voters)}
	if p := m.peers[m.opt.Self]; p != nil {
		s.Self = p.report
	}
	for _, n := range m.nodes() {
		s.Nodes = append(s.Nodes, m.nodeStatus(n))
	}
	for _, name := range m.groups() {
		if g := m.fresh[name]; !g.Retired || g.Owner != "" {
			s.Groups = append(s.Groups, m.groupStatus(name, g))
		}
	}
	s.Problems = m.findings(s)
	return s
}

func (m *Machine) nodeStatus(n NodeSpec) NodeStatus {
	s := NodeStatus{Spec: n, Voter: slices.Contains(m.voters, n.Name), Unfit: map[GroupName]string{}}
	if p := m.peers[n.Name]; p != nil && p.heard {
		s.Heard, s.Reachable, s.Age, s.Report = true, m.recent(p), m.now.Sub(p.at), p.report
	}
	for _, name := range m.groups() {
		if g := m.fresh[name]; !n.Witness && !g.Retired {
			if why := m.unqualified(n, name, g); why != "" {
				s.Unfit[name] = why
			}
		}
	}
	return s
}

func (m *Machine) groupStatus(name GroupName, g GroupState) GroupStatus {
	s := GroupStatus{Name: name, State: g}
	if f := m.foreign[name]; f.count > 0 {
		s.Conflicts, s.LastConflict = f.count, m.now.Sub(f.last)
	}
	if h := m.held[name]; h != nil {
		s.Phase, s.Held = h.reported().String(), h.epoch
		if h.phase != waiting {
			s.LeaseLeft = max(0, h.lease.Sub(m.now))
		}
	}
	for _, p := range g.Spec.Addresses {
		if m.seen[p.Addr()].Present {
			s.BoundHere = append(s.BoundHere, p.Addr())
		}
	}
	return s
}

// findings says in sentences what is not as it should be.
func (m *Machine) findings(s Status) []Finding {
	var fs []Finding
	add := func(subject, format string, args ...any) {
		fs = append(fs, Finding{Subject: subject, Text: fmt.Sprintf(format, args...)})
	}
	reachable := 0
	for _, n := range s.Nodes {
		if n.Voter && n.Reachable {
			reachable++
		}
	}
	switch {
	case m.opt.Ready.After(m.now):
		add("node "+string(m.opt.Self), "The daemon is starting: it takes part in %v.", m.opt.Ready.Sub(m.now).Round(time.Millisecond))
	case len(s.Voters) == 0:
		add("cluster", "This node is not part of a cluster yet: a new cluster begins when every node of the file answers.")
	case 2*reachable <= len(s.Voters):
		add("cluster", "No majority: %d of %d voters are heard, so no address is served from here.", reachable, len(s.Voters))
	case s.Leader == "":
		add("cluster", "There is no leader at the moment.")
	case len(s.Voters)%2 == 0:
		add("cluster", "An even number of voters (%d) survives no more failures than one voter less: add a witness.", len(s.Voters))
	}
	for _, g := range s.Groups {
		m.groupFindings(s, g, add)
	}
	for _, n := range s.Nodes {
		m.nodeFindings(n, add)
	}
	return fs
}

func (m *Machine) groupFindings(s Status, g GroupStatus, add func(string, string, ...any)) {
	subject := "group " + string(g.Name)
	st := g.State
	if st.Owner == "" {
		if st.Reason == "" {
			add(subject, "Nobody has owned it yet.")
		} else {
			add(subject, "Nobody owns it. The last owner was put out: %s.", st.Reason)
		}
		if c := m.arb.choices[g.Name]; c != nil && c.epoch == st.Epoch && c.refused != "" {
			add(subject, "Nobody is promoted: %s.", c.refused)
		}
		for _, n := range s.Nodes {
			if why := n.Unfit[g.Name]; why != "" {
				add(subject, "%s can not take it: %s.", n.Spec.Name, why)
			}
		}
	} else if i := slices.IndexFunc(s.Nodes, func(n NodeStatus) bool { return n.Spec.Name == st.Owner }); i >= 0 {
		ownerFindings(s.Nodes[i], g, add)
		m.unwritableFinding(s.Nodes[i], g, add)
	}
	m.adviceFindings(g.Name, st, func(format string, args ...any) { add(subject, format, args...) })
	if st.Paused {
		add(subject, "It is paused: it stays where it is until `remora resume %s`.", g.Name)
	}
	if st.Move != nil {
		add(subject, "It is on its way from %s to %s: %s.", st.Owner, st.Move.To, st.Move.Reason)
	}
	if h := st.Handover; h != nil {
		add(subject, "It is on its way from %s, which has to give it up first, to %s: %s.", h.From, st.Owner, st.Reason)
	}
	if at := m.foreignAt(g.Name, ""); at != "" {
		add(subject, "An address of it is bound on %s, but not by Remora: as long as it is, no other node gets the group.", at)
	}
	if g.Contested() {
		add(subject, "Somebody else on the link has claimed an address of it while this node served it, last %v ago; times seen: %d.",
			g.LastConflict.Round(time.Second), g.Conflicts)
	}
}

func ownerFindings(owner NodeStatus, g GroupStatus, add func(string, string, ...any)) {
	subject := "group " + string(g.Name)
	switch {
	case !owner.Reachable:
		add(subject, "Its owner %s is not heard, so its lease runs out.", owner.Spec.Name)
	case !serving(owner.Report, g.Name, g.State.Epoch):
		add(subject, "Its owner %s does not serve it at the moment.", owner.Spec.Name)
	}
}

func (m *Machine) nodeFindings(n NodeStatus, add func(string, string, ...any)) {
	subject := "node " + string(n.Spec.Name)
	switch {
	case !n.Heard:
		add(subject, "Never heard since this daemon started: is remora running there, and do TCP and UDP get through to %s?", n.Spec.Address)
		return
	case !n.Reachable:
		add(subject, "Not heard for %v.", n.Age.Round(time.Millisecond))
		return
	case !n.Voter && len(m.voters) > 0:
		add(subject, "It does not vote yet.")
	}
	m.mhaFindings(n, add)
	r := n.Report
	switch {
	case n.Spec.Witness || r.Health.State == Healthy:
	case r.Health.State == Failed:
		add(subject, "Its MySQL has failed: %s.", cmp.Or(r.Health.Reason, "no reason is known"))
	default:
		add(subject, "It is not known yet whether its MySQL is healthy.")
	}
	for _, a := range r.Health.Alarms {
		add(subject, "%s", a)
	}
	for _, b := range r.Blocked {
		add(subject, "It can not serve group %s: %s.", b.Group, b.Reason)
	}
	if !n.Spec.Witness && r.Health.State == Healthy {
		var told []GroupName // of pools
		for _, name := range slices.Sorted(maps.Keys(n.Unfit)) {
			why := n.Unfit[name]
			if r.Aside != "" {
				continue
			}
			g := m.fresh[name]
			if g.Owner == "" || g.Paused || g.Spec.Policy == Follow || slices.ContainsFunc(r.Blocked, func(b Blocked) bool { return b.Group == name }) {
				continue
			}
			switch pool := g.Spec.Pool; {
			case pool == "":
				add(subject, "It could not take group %s: %s.", name, why)
			case (r.Health.Source != "" || r.Health.Writable == No) && !slices.Contains(told, pool): // that a primary serves no readers is as it should be
				told = append(told, pool)
				add(subject, "It could not take addresses of %s: %s.", pool, why)
			}
		}
	}
	if r.Aside != "" {
		add(subject, "Its server is set aside: %s. Bring these to the primary by hand or give them up and build the server anew from it, then say 'remora rejoin' there.", r.Aside)
	}
	if r.Unfenced {
		add(subject, "Its kernel holds leases by address lifetimes of whole seconds alone: if its daemon is killed or frozen, its addresses may answer for seconds more, for which everybody waits. Load nf_tables there.")
	}
	if r.DryRun {
		add(subject, "It runs with --dry-run and carries nothing out.")
	}
	if v := m.view.Config.Version; v != 0 && r.Config != v {
		add(subject, "Its configuration file has version %d, the cluster uses version %d.", r.Config, v)
	}
}
