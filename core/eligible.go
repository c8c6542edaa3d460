package core

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// Eligible reports whether a server with this health may serve a group, and if not, why. The incumbent, which serves
// already, is not put out by an unknown; a newcomer must be known to be fit. What readers ask for besides depends on time
// and is the matter of Reading.
func Eligible(spec GroupSpec, h Health, incumbent bool) (bool, string) {
	if h.State != Healthy {
		if h.State == HealthUnknown && h.Reason == "" {
			return false, "it is not known yet whether MySQL is healthy"
		}
		return false, "MySQL: " + cmp.Or(h.Reason, h.State.String())
	}
	for _, p := range spec.Addresses {
		if h.Listens != nil && !listensOn(h.Listens, p.Addr()) {
			return false, fmt.Sprintf("MySQL listens on %v and can not be reached at %s: set bind_address to * or to the address",
				h.Listens, p.Addr())
		}
	}
	if spec.Policy == Follow {
		switch {
		case h.Writable == No:
			return false, "MySQL is read-only, and the policy is follow"
		case h.Writable == Unknown && !incumbent:
			return false, "it is not known whether MySQL is writable, and the policy is follow"
		}
	}
	return true, ""
}

func listensOn(listens []netip.Addr, a netip.Addr) bool {
	return slices.ContainsFunc(listens, func(l netip.Addr) bool {
		return l == a || l.IsUnspecified() && l.Is4() == a.Is4()
	})
}

// candidate is a node with what ranks it.
type candidate struct {
	node     NodeName
	wanted   bool    // an operator wants it to be this one
	cooling  Instant // when it failed, if that is not long ago; else 0
	priority int
}

// rank sorts candidates, the best first: wanted by an operator, not cooling down, failed longest ago, highest priority, name.
// A node that looks fit and can not serve, since it does not hear us, so comes after all others once it has been tried.
func rank(cs []candidate) {
	slices.SortFunc(cs, func(a, b candidate) int {
		return cmp.Or(-compareBool(a.wanted, b.wanted), cmp.Compare(a.cooling, b.cooling),
			-cmp.Compare(a.priority, b.priority), cmp.Compare(a.node, b.node))
	})
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

// candidates returns the nodes that could serve a group now, the best first, and for each other node the reason why it
// could not.
func (m *Machine) candidates(name GroupName, g GroupState) ([]candidate, map[NodeName]string) {
	var cs []candidate
	why := map[NodeName]string{}
	to := m.destination(g)
	for _, n := range m.view.Config.Nodes {
		if n.Witness {
			continue
		}
		if w := m.unqualified(n, name, g); w != "" {
			why[n.Name] = w
			continue
		}
		p := m.peers[n.Name]
		cs = append(cs, candidate{
			node: n.Name, priority: n.Priority,
			wanted:  to == n.Name,
			cooling: m.cooling(p),
		})
	}
	if g.Spec.Role == Reader {
		m.rankReaders(name, g, cs)
	} else {
		rank(cs)
	}
	return cs, why
}

// cooling returns when a node failed, if it is cooling down from that, else 0.
func (m *Machine) cooling(p *peer) Instant {
	if !p.failed || m.now.Sub(p.failedAt) >= m.opt.Timing.CoolDown {
		return 0
	}
	return max(p.failedAt, 1)
}

// unqualified returns why a node can not be given a group, or nothing.
func (m *Machine) unqualified(n NodeSpec, name GroupName, g GroupState) string {
	p := m.peers[n.Name]
	switch {
	case p == nil || !p.heard:
		return "not heard of yet"
	case !m.recent(p):
		return fmt.Sprintf("not heard for %v", m.now.Sub(p.at).Round(1e6))
	case p.report.Starting:
		return "the daemon is starting"
	case p.report.Leaving:
		return "the daemon is stopping"
	case p.report.DryRun && !m.allDry():
		return "the daemon runs with --dry-run"
	case (g.Spec.Policy == Promote || g.Spec.Policy == onAdvice) && p.report.Aside != "":
		return "its server is set aside: " + p.report.Aside
	case p.report.Unfenced && unfencedUnfit(m.ttl()) != "":
		return unfencedUnfit(m.ttl())
	case g.Paused && (g.Grant == nil || g.Grant.To != n.Name):
		return "the group is paused"
	}
	for _, b := range p.report.Blocked {
		if b.Group == name {
			return b.Reason
		}
	}
	if w := m.view.taken(g); w != "" {
		return w
	}
	if at := m.foreignAt(name, n.Name); at != "" {
		return fmt.Sprintf("an address of the group is bound on %s, but not by Remora: remove it there", at)
	}
	if _, w := Eligible(g.Spec, p.report.Health, false); w != "" {
		return w
	}
	if g.Spec.Role == Reader {
		return m.peerUnreadable(n.Name, g.Spec)
	}
	if g.Spec.Policy == AnyHealthy {
		if source := m.oneWaySource(n.Name); source != "" {
			return fmt.Sprintf("MySQL replicates one way from %s: policy any is for primaries of one another, use follow", source)
		}
	}
	return ""
}

func (m *Machine) allDry() bool {
	for _, p := range m.peers {
		if m.recent(p) && !p.report.DryRun {
			return false
		}
	}
	return true
}

// foreignAt returns a node other than except on which an address of the group is bound by somebody else.
func (m *Machine) foreignAt(name GroupName, except NodeName) NodeName {
	for n := range m.everyone() {
		if p := m.peers[n]; n != except && m.recent(p) && slices.Contains(p.report.Foreign, name) {
			return n
		}
	}
	return ""
}

// oneWaySource returns the member from which a node's server gets changes without any way back: following the sources
// from server to server ends at one that replicates from nobody, or goes round in a ring of others. A ring that leads
// back is what is wanted; a dead server on the way proves nothing.
func (m *Machine) oneWaySource(n NodeName) NodeName {
	first, at := NodeName(""), n
	for range m.view.Config.Nodes {
		p := m.peers[at]
		if !m.recent(p) || p.report.Health.State != Healthy {
			return ""
		}
		if p.report.Health.Source == "" {
			if p.report.Health.Replicating == Unknown {
				return ""
			}
			return first
		}
		at = m.nodeOf(p.report.Health.Source)
		if at == "" || at == n {
			return ""
		}
		if first == "" {
			first = at
		}
	}
	return first
}

// nodeOf returns the member that has the host of a replication source, where its peers or where their servers reach it, if there is
// one.
func (m *Machine) nodeOf(source string) NodeName {
	ap, err := netip.ParseAddrPort(source)
	if err != nil {
		return ""
	}
	for _, n := range m.view.Config.Nodes {
		if n.Address.Addr() == ap.Addr() || n.Server().Addr() == ap.Addr() {
			return n.Name
		}
	}
	return ""
}
