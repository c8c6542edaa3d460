package control

import (
	"time"

	"github.com/remora-ha/remora/core"
)

// Facts is what a daemon knows beside the machine's own status.
type Facts struct {
	Node    core.NodeName
	Cluster string
	Version string
	DryRun  bool
	Now     time.Time
	Profile string
	Timing  core.Timing
	// Interface returns the interface that carries a group on this node; nil means the group's own.
	Interface func(core.GroupSpec) string
	// Clients returns how many connections a group's owner has, nil if it is not known; the function may be nil, too.
	Clients func(core.GroupName) *int
	Process Process
}

// FromCore turns the machine's status into the documented one.
func FromCore(s core.Status, f Facts) Status {
	out := Status{
		Schema: Schema, Cluster: f.Cluster, Node: string(f.Node), Time: f.Now.UTC().Truncate(time.Millisecond), Version: f.Version, DryRun: f.DryRun,
		Quorum: quorum(s), Leader: string(s.Leader), ConfigVersion: s.View.Config.Version,
		Timing: Timing{Profile: f.Profile, HeartbeatMS: f.Timing.Heartbeat.Milliseconds(), TTLMS: f.Timing.TTL.Milliseconds()},
		Groups: []Group{}, Nodes: []Node{}, Problems: []Problem{}, Process: f.Process,
	}
	if ttl := s.View.Config.TTL; ttl > 0 {
		out.Timing.TTLMS = int64(ttl)
	}
	out.Timing.MarginMS = longestMargin(s, time.Duration(out.Timing.TTLMS)*time.Millisecond).Milliseconds()
	for _, g := range s.Groups {
		out.Groups = append(out.Groups, groupFromCore(g, f))
	}
	for _, n := range s.Nodes {
		out.Nodes = append(out.Nodes, nodeFromCore(n, s.Leader))
	}
	for _, p := range s.Problems {
		out.Problems = append(out.Problems, Problem(p))
	}
	return out
}

// longestMargin is the margin for the node for which the longest is kept.
func longestMargin(s core.Status, ttl time.Duration) time.Duration {
	for _, n := range s.Nodes {
		if n.Report.Unfenced {
			return core.UnfencedMargin(ttl)
		}
	}
	return core.Margin(ttl)
}

// quorum reports whether a leader is known and a majority of the voters is heard.
func quorum(s core.Status) bool {
	heard := 0
	for _, n := range s.Nodes {
		if n.Voter && n.Reachable {
			heard++
		}
	}
	return s.Leader != "" && 2*heard > len(s.Voters)
}

func groupFromCore(g core.GroupStatus, f Facts) Group {
	st := g.State
	out := Group{
		Name: string(g.Name), Role: string(st.Spec.Role), Policy: string(st.Spec.Policy), Pool: string(st.Spec.Pool), Owner: string(st.Owner),
		Epoch: uint64(st.Epoch), Addresses: []string{}, Interface: st.Spec.Interface, Bound: []string{},
		BoundHere: len(g.BoundHere) > 0 && len(g.BoundHere) == len(st.Spec.Addresses),
		Phase:     "none", Paused: st.Paused, Reason: st.Reason, Conflicts: g.Conflicts, Contested: g.Contested(),
	}
	if g.Conflicts > 0 {
		out.LastConflictMS = millis(g.LastConflict)
	}
	if f.Interface != nil {
		out.Interface = f.Interface(st.Spec)
	}
	if st.Since != 0 {
		since := time.UnixMilli(st.Since).UTC()
		out.Since = &since
	}
	if g.Phase != "" {
		out.Phase = g.Phase
		out.LeaseLeftMS = millis(g.LeaseLeft)
	}
	if f.Clients != nil {
		out.Clients = f.Clients(st.Spec.Name)
	}
	for _, a := range st.Spec.Addresses {
		out.Addresses = append(out.Addresses, a.String())
	}
	for _, a := range g.BoundHere {
		out.Bound = append(out.Bound, a.String())
	}
	if st.Move != nil {
		out.MovingTo = string(st.Move.To)
	}
	if st.Handover != nil {
		out.MovingTo = string(st.Owner)
	}
	return out
}

func nodeFromCore(n core.NodeStatus, leader core.NodeName) Node {
	r := n.Report
	out := Node{
		Name: string(n.Spec.Name), Address: n.Spec.Address.String(), Priority: n.Spec.Priority, Witness: n.Spec.Witness,
		Voter: n.Voter, Leader: n.Spec.Name == leader, Reachable: n.Reachable,
		Starting: r.Starting, Leaving: r.Leaving, DryRun: r.DryRun, Unfenced: r.Unfenced, SetAside: r.Aside, Version: r.Release, ConfigVersion: r.Config,
	}
	for group, why := range n.Unfit {
		if out.Unfit == nil {
			out.Unfit = map[string]string{}
		}
		out.Unfit[string(group)] = why
	}
	if n.Heard {
		out.LastHeardMS = millis(n.Age)
	}
	if n.Heard && !n.Spec.Witness {
		out.MySQL = mysqlFromCore(r.Health)
	}
	return out
}

func mysqlFromCore(h core.Health) *MySQL {
	out := &MySQL{
		Health: h.State.String(), Reason: h.Reason, Role: mysqlRole(h), Writable: h.Writable.String(), Source: h.Source,
		Replicating: h.Replicating.String(), GTID: h.GTID, Version: h.Version, Listens: []string{},
		MHAWatches: h.MHAWatches.String(), MHAActs: h.MHAActs.String(), Alarms: append([]string{}, h.Alarms...),
	}
	if h.Source != "" && h.Lag >= 0 {
		out.LagMS = millis(h.Lag)
	}
	if h.Source != "" && h.Measured >= 0 {
		out.MeasuredLagMS = millis(h.Measured)
	}
	if s := h.SemiSync; s.Acks > 0 {
		out.SemiSync = &SemiSync{Waits: s.Waits, AfterSync: s.AfterSync, WaitsAlone: s.Alone, Acks: s.Acks, Replicas: s.Replicas,
			TimeoutMS: s.Timeout.Milliseconds()}
	}
	for _, a := range h.Listens {
		out.Listens = append(out.Listens, a.String())
	}
	return out
}

// mysqlRole names what a server is at the moment. A writable server is a primary whatever it replicates from: dual
// primaries replicate from each other.
func mysqlRole(h core.Health) string {
	switch {
	case h.Writable == core.Yes:
		return "primary"
	case h.Writable != core.No:
		return "unknown"
	case h.Source != "":
		return "replica"
	default:
		return "read-only"
	}
}

func millis(d time.Duration) *int64 {
	ms := d.Milliseconds()
	return &ms
}
