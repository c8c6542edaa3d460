package core

import (
	"fmt"
	"strings"
)

// MovePlan is what a switchover would do.
type MovePlan struct {
	From, To NodeName
	Checks   []Check
	Steps    []string
}

// PlanMove returns what a switchover of a group to a node would do, with the present state of its conditions. It changes
// nothing. Only the arbiter knows all of it.
func (m *Machine) PlanMove(now Instant, name GroupName, to NodeName) MovePlan {
	m.now = max(m.now, now)
	g := m.view.Groups[name]
	p := MovePlan{From: g.Owner, To: to, Checks: []Check{{What: "the group can be moved now", Why: m.immovable(name, to)}}}
	if p.Checks[0].Why != "" {
		return p
	}
	p.Checks = append(p.Checks, m.MoveChecks(name, to)...)
	step := func(format string, args ...any) { p.Steps = append(p.Steps, fmt.Sprintf(format, args...)) }
	promotes := g.Spec.Policy == Promote
	if promotes {
		limits := g.Spec.Promotion
		step("the server of %s becomes read-only; its transactions may go on for %v, then they are ended", g.Owner, limits.DrainFor())
		step("the server of %s applies what it lacks of that, within %v; if it can not, %s becomes writable again", to, limits.catchUp(), g.Owner)
	}
	step("%s gives up %s", g.Owner, addresses(g.Spec))
	step("%s is granted the group: the point of no return", to)
	if promotes {
		step("the server of %s stops to replicate and becomes writable", to)
	}
	step("%s binds and announces", to)
	if promotes {
		step("the servers of %s follow that of %s", strings.Join(m.othersThan(to), " and "), to)
	}
	return p
}

// immovable returns why a group can not be moved to a node, whatever the state of the servers, or nothing.
func (m *Machine) immovable(name GroupName, to NodeName) string {
	g, known := m.view.Groups[name]
	_, busy := m.arb.inflight[name]
	switch {
	case m.arb.term == 0:
		return NotArbiter
	case !known || g.Retired:
		return fmt.Sprintf("there is no group %q", name)
	case g.Owner == to:
		return fmt.Sprintf("%s owns %s already, in epoch %d", to, name, g.Epoch)
	case g.Paused:
		return fmt.Sprintf("group %s is paused: resume it first", name)
	case g.Owner == "":
		return fmt.Sprintf("nobody owns %s, so there is nothing to move; the status says why", name)
	case g.awaitsStart():
		return g.awaitedStart()
	case busy || m.destination(g) != "":
		return fmt.Sprintf("group %s is on its way already", name)
	}
	n, member := m.nodeSpec(to)
	switch {
	case !member:
		return fmt.Sprintf("there is no node %q", to)
	case n.Witness:
		return fmt.Sprintf("%s is a witness: it votes and never owns", to)
	}
	return ""
}

func addresses(g GroupSpec) string {
	var texts []string
	for _, a := range g.Addresses {
		texts = append(texts, a.Addr().String())
	}
	return strings.Join(texts, ", ")
}

// othersThan returns the nodes with a server but one.
func (m *Machine) othersThan(n NodeName) []string {
	var names []string
	for _, s := range m.view.Config.Nodes {
		if s.Name != n && !s.Witness {
			names = append(names, string(s.Name))
		}
	}
	return names
}
