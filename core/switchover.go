package core

import (
	"fmt"
	"slices"
	"time"
)

// moveWatch is how long the arbiter has seen a switchover of policy promote in its present stage.
type moveWatch struct {
	began   Index
	drained bool
	since   Instant
}

// stageGrace is what a stage may take besides what its limit allows.
const stageGrace = 3 * time.Second

// Check is one condition of a planned switchover.
type Check struct {
	What string
	// Why says what is wrong; it is empty if the condition holds. Open says why that is known only later.
	Why, Open string
}

// MoveChecks returns the conditions of a switchover of a group to a node, each with its present state.
func (m *Machine) MoveChecks(name GroupName, to NodeName) []Check {
	g := m.view.Groups[name]
	n, member := m.nodeSpec(to)
	if !member || n.Witness {
		return []Check{{What: "the target is a node with a server", Why: fmt.Sprintf("%q is none", to)}}
	}
	cs := []Check{{What: fmt.Sprintf("%s can take the group", to), Why: m.unqualified(n, name, g)}}
	if g.Spec.Policy != Promote {
		return cs
	}
	owner, _ := m.nodeSpec(g.Owner)
	var o, t Health
	if p := m.peers[g.Owner]; m.recent(p) {
		o = p.report.Health
	}
	if p := m.peers[to]; m.recent(p) {
		t = p.report.Health
	}
	follows := Check{What: fmt.Sprintf("%s replicates from %s", to, g.Owner)}
	if t.Source != owner.Server().String() {
		follows.Why = fmt.Sprintf("its source is %q, and the owner's server is %s", t.Source, owner.Server())
	} else if t.Replicating != Yes {
		follows.Why = "its replication does not run"
	}
	lag := Check{What: fmt.Sprintf("%s is not far behind", to)}
	limit := g.Spec.Promotion.catchUp()
	if l := g.Spec.Promotion.MaxLag.Duration(); l > 0 {
		limit = min(limit, l)
	}
	if behind := t.behindNow(); behind < 0 || behind > limit {
		lag.Why = fmt.Sprintf("its lag is %v, and %v is allowed", behind, limit)
		if behind < 0 {
			lag.Why = "its lag is not known"
		}
	}
	writable := Check{What: fmt.Sprintf("%s is writable", g.Owner)}
	if o.Writable != Yes {
		writable.Why = "the owner's server is not known to be writable"
	}
	return append(cs, follows, lag, writable, m.errant(g.Owner, to))
}

// errant is the condition that a target has nothing which the owner lacks. The owner's set is as old as its last look, and
// a replica under load has what came since; only if it has had it for long is that known before the owner is drained.
func (m *Machine) errant(owner, to NodeName) Check {
	c := Check{What: fmt.Sprintf("%s has no transaction that %s lacks", to, owner)}
	theirs, ours := m.executed[to], m.executed[owner]
	if m.opt.Sets == nil || theirs == "" || ours == "" {
		c.Open = "one of their sets is not known"
		return c
	}
	n, err := m.opt.Sets.Missing(theirs, ours)
	switch {
	case err != nil:
		c.Why = fmt.Sprintf("their sets can not be compared: %v", err)
	case n > 0 && m.now.Sub(m.paces[to].at) > 2*looksAfter:
		c.Why = fmt.Sprintf("it has %d", n)
	case n > 0:
		c.Open = fmt.Sprintf("the last look at %s is older than that at %s; it is known when %s is drained", owner, to, owner)
	}
	return c
}

// checkMove returns the first condition of a switchover that does not hold, or nothing.
func (m *Machine) checkMove(name GroupName, to NodeName) string {
	for _, c := range m.MoveChecks(name, to) {
		if c.Why != "" {
			return c.Why
		}
	}
	return ""
}

// driveMove brings a switchover of policy promote to its next stage, or ends it. It knows nothing that is not in the
// ledger or told again and again, so an arbiter new in office goes on where the one before has stopped.
func (m *Machine) driveMove(name GroupName, g GroupState) {
	a, mv := &m.arb, g.Move
	if w := a.moves[name]; w.began != mv.Began || w.drained != mv.Drained {
		a.moves[name] = moveWatch{began: mv.Began, drained: mv.Drained, since: m.now}
	}
	if why := m.moveFails(name, g); why != "" {
		a.inflight[name] = m.propose(0, abortOp(g, why))
		return
	}
	d := m.drained[name]
	if !mv.Drained && d.Move == mv.Began && d.Epoch == g.Epoch {
		a.inflight[name] = m.propose(0, Op{Drain: &Drain{Group: name, Epoch: g.Epoch, Move: mv.Began, Executed: d.Executed}})
	}
}

func abortOp(g GroupState, why string) Op {
	return Op{Abort: &Abort{Group: g.Spec.Name, Epoch: g.Epoch, Move: g.Move.Began, Reason: why}}
}

// moveFails returns why a switchover has to be aborted, or nothing.
func (m *Machine) moveFails(name GroupName, g GroupState) string {
	mv, w, d := g.Move, m.arb.moves[name], m.drained[name]
	limit, stage := g.Spec.Promotion.DrainFor()+stageGrace, fmt.Sprintf("the server of %s was not drained", g.Owner)
	if mv.Drained {
		limit, stage = g.Spec.Promotion.catchUp()+stageGrace, fmt.Sprintf("%s did not catch up", mv.To)
	}
	n, member := m.nodeSpec(mv.To)
	switch {
	case !member || n.Witness:
		return fmt.Sprintf("%s is no node that could own any more", mv.To)
	case !mv.Drained && d.Move == mv.Began && d.Err != "":
		return fmt.Sprintf("the server of %s could not be drained: %s", g.Owner, d.Err)
	case mv.Drained && m.caught[name].Move == mv.Began && m.caught[name].Err != "":
		return fmt.Sprintf("%s did not catch up: %s", mv.To, m.caught[name].Err)
	case m.now.Sub(w.since) > limit:
		return fmt.Sprintf("%s within %v", stage, limit)
	}
	if why := m.unqualified(n, name, g); why != "" {
		return fmt.Sprintf("%s can not take %s any more: %s", mv.To, name, why)
	}
	if mv.Drained || d.Move == mv.Began {
		return m.ahead(mv, d)
	}
	return ""
}

// ahead returns in words that the target of a switchover has what the drained owner has not, or nothing.
func (m *Machine) ahead(mv *Move, d Drained) string {
	executed := mv.Executed
	if !mv.Drained {
		executed = d.Executed
	}
	p := m.peers[mv.To]
	if m.opt.Sets == nil || p == nil || p.report.Health.Executed == "" {
		return ""
	}
	if n, err := m.opt.Sets.Missing(p.report.Health.Executed, executed); err != nil {
		return fmt.Sprintf("the sets of %s and the owner can not be compared: %v", mv.To, err)
	} else if n > 0 {
		return fmt.Sprintf("%s has %d transactions that the owner lacks", mv.To, n)
	}
	return ""
}

// handedOver returns the operations for a release that ends a holding under policy promote. The release and the grant to
// the target of a switchover that has come so far are one entry, its point of no return. In all other cases the
// successor is chosen afterwards.
func (m *Machine) handedOver(g GroupState, release Op) []Op {
	name, mv := g.Spec.Name, g.Move
	switch {
	case mv == nil || g.Next != nil:
		return []Op{release}
	case mv.Drained && m.caught[name].Move == mv.Began && m.caught[name].Err == "" && m.moveFails(name, g) == "":
		op, _ := m.grantTo(name, g, mv.To, release.Release.Reason)
		return []Op{release, op}
	}
	return []Op{abortOp(g, "the owner has given up: "+release.Release.Reason), release}
}

// endUnchosen commits the end of a holding under policy promote. If nobody is granted the group in the same entry, the
// servers stop their receivers while that is on its way.
func (m *Machine) endUnchosen(name GroupName, g GroupState, release Op) {
	ops := m.handedOver(g, release)
	m.arb.inflight[name] = m.propose(0, ops...)
	if ops[len(ops)-1].Grant != nil || g.Retired {
		return
	}
	if p := m.peers[g.Owner]; p != nil {
		p.failed, p.failedAt = true, m.now // among equals it comes last
	}
	m.succeed(name, g, release.Release.Reason)
}

func (m *Machine) drainedCame(from NodeName, d Drained) {
	if g := m.fresh[d.Group]; g.Owner == from && g.Epoch == d.Epoch {
		m.drained[d.Group] = d
	}
}

// moveAborted tells operators that their switchover came to nothing before the point of no return.
func (m *Machine) moveAborted(op Abort) {
	g := m.view.Groups[op.Group]
	m.endWishes(func(w wish) (bool, string) {
		return w.moves && w.group == op.Group && w.epoch == op.Epoch,
			fmt.Sprintf("the switchover was aborted before the point of no return, %s stays the owner: %s", g.Owner, op.Reason)
	})
}

func (m *Machine) switchoverWake(earlier func(Instant)) {
	for name, w := range m.arb.moves {
		g := m.view.Groups[name]
		if _, busy := m.arb.inflight[name]; !busy && g.Spec.Policy == Promote && g.Move != nil && g.Move.Began == w.began && g.Owner != "" {
			limit := g.Spec.Promotion.DrainFor()
			if w.drained {
				limit = g.Spec.Promotion.catchUp()
			}
			earlier(w.since.Add(limit + stageGrace + time.Millisecond))
		}
	}
}

// serving reports whether a node says that it serves a group in an epoch.
func serving(r Report, name GroupName, e Epoch) bool {
	return slices.Contains(r.Holds, Holding{Group: name, Epoch: e, Phase: Serving})
}
