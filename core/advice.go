package core

import (
	"fmt"
	"time"
)

// Advice is an operation that an outside failover manager, MHA, has opened for a group with "stop": the node From gives
// the group up, and the group waits for "start", which names the successor. While it is open nobody else is granted the
// group. It is closed by the grant that start leads to, or withdrawn when start does not come in time.
type Advice struct {
	// ID names the operation. It is random.
	ID    uint64    `json:"id"`
	Group GroupName `json:"group"`
	// Epoch is the group's epoch when the operation was opened.
	Epoch Epoch    `json:"epoch"`
	From  NodeName `json:"from"`
	// Online says that it is a planned change: the node gives up although it serves well.
	Online bool `json:"online,omitempty"`
	// Wait is how long the group waits for start, by the arbiter's clock from the opening on. An arbiter that comes into
	// office meanwhile counts anew.
	Wait Millis `json:"wait_ms"`
	// By says who gave the advice, for people.
	By string `json:"by,omitempty"`
	// Graceful says that From's server is made read-only before the group is given up; its transactions may go on for Drain.
	Graceful bool   `json:"graceful,omitempty"`
	Drain    Millis `json:"drain_ms,omitempty"`
	// Writable says that From served with a writable server when the operation was opened, so that what has made it read-only
	// since then belongs to the operation.
	Writable bool `json:"writable,omitempty"`
	// Given is the node that start named. It closes the operation.
	Given NodeName `json:"given,omitempty"`
	// Over says that the operation was withdrawn and that what it has done to From's server may have to be undone. It is kept
	// until the next grant.
	Over bool `json:"over,omitempty"`
}

// Withdraw closes an operation that came to nothing; the group's own policy takes over.
type Withdraw struct {
	Group  GroupName `json:"group"`
	ID     uint64    `json:"id"`
	Reason string    `json:"reason"`
}

// Remark is a line for the history that somebody outside wants to have there, MHA's report for example.
type Remark struct {
	Group GroupName `json:"group"`
	Text  string    `json:"text"`
}

// AdviceAsked is advice on its way to the arbiter. A stop is answered when it is proven that Node holds the group no more:
// released in the ledger, by the node itself or because its lease is over. A start is answered when Node serves.
type AdviceAsked struct {
	Ticket uint64
	Group  GroupName
	// Stop tells a stop from a start.
	Stop bool
	// Node is whom the stop is for, or who shall own the group after the start.
	Node   NodeName
	Online bool
	// Graceful asks for a stop that makes Node's server read-only first, with Drain for its transactions; so it does only where
	// Online is set too.
	Graceful bool
	Drain    time.Duration
	By       string
	// Wait is how long the group waits for start after a stop.
	Wait time.Duration
	// Waive is how long Node may serve after a start although its server is read-only: the manager lifts that afterwards.
	Waive time.Duration
	// Clear asks that Node clears read_only itself after a start.
	Clear bool
}

// RemarkAsked is a line for the history.
type RemarkAsked struct {
	Ticket uint64
	Group  GroupName
	Text   string
}

func (AdviceAsked) event() {}
func (RemarkAsked) event() {}

// Kinds of history entries about advice.
const (
	KindAdvice   = "advice"
	KindWithdraw = "withdraw"
	KindRemark   = "remark"
)

// onAdvice stands for the group's policy where advice waives it: any healthy server will do.
const onAdvice Policy = "on advice"

// awaitsStart reports whether an operation is open.
func (g GroupState) awaitsStart() bool {
	return g.Advice != nil && g.Advice.Given == "" && !g.Advice.Over
}

// awaitedStart says what a group waits for whose operation is open.
func (g GroupState) awaitedStart() string {
	return fmt.Sprintf("the group waits for the start that follows the stop of %s", g.Advice.From)
}

// undoable reports whether an operation has made a server read-only that was writable, so that this is to be undone when the
// operation comes to nothing.
func (a Advice) undoable() bool { return a.Online && a.Graceful && a.Writable }

// unstarted says why an operation came to nothing.
func (a Advice) unstarted() string {
	return fmt.Sprintf("no start came within %v after the stop of %s", a.Wait.Duration(), a.From)
}

// What follows is the ledger's part.

func (l *Ledger) advise(g *GroupState, e *Entry, op Advice) string {
	switch {
	case g.Retired:
		return "the group is retired"
	case op.Epoch != g.Epoch:
		return fmt.Sprintf("the advice is about epoch %d, but the group is in epoch %d", op.Epoch, g.Epoch)
	case g.Owner != "" && g.Owner != op.From:
		return fmt.Sprintf("the advice is about %s, but %s owns the group", op.From, g.Owner)
	case g.Paused:
		return "the group is paused: resume it first"
	case g.Handover != nil:
		return g.handedOn()
	case g.awaitsStart():
		return fmt.Sprintf("the advice about %s is not carried out yet", g.Advice.From)
	}
	if why := l.mayOwn(op.From); why != "" {
		return why
	}
	e.Kind, e.Epoch, e.Node, e.Reason = KindAdvice, g.Epoch, op.From, "stop: "+op.By
	op.Given, op.Over = "", false
	g.Advice, g.Move = &op, nil
	return ""
}

func withdraw(g *GroupState, e *Entry, op Withdraw) string {
	if !g.awaitsStart() || g.Advice.ID != op.ID {
		return "the operation is closed already"
	}
	e.Kind, e.Epoch, e.Node, e.Reason = KindWithdraw, g.Epoch, g.Advice.From, op.Reason
	if !g.Advice.undoable() {
		g.Advice = nil
		return ""
	}
	closed := *g.Advice
	closed.Over = true
	g.Advice = &closed
	return ""
}

func remark(g *GroupState, e *Entry, op Remark) string {
	e.Kind, e.Epoch, e.Reason = KindRemark, g.Epoch, op.Text
	return ""
}

// adviceForbids returns why a grant can not be while an operation is open, or nothing.
func (g GroupState) adviceForbids(op Grant) string {
	if g.awaitsStart() && g.Advice.ID != op.Advice {
		return fmt.Sprintf("the group waits for the start that follows the stop of %s", g.Advice.From)
	}
	return ""
}

// adviceGranted closes the operation that a grant ends, and forgets one that was closed before.
func (g *GroupState) adviceGranted(op Grant) {
	if !g.awaitsStart() && !op.Undo || g.Advice == nil {
		g.Advice = nil
		return
	}
	closed := *g.Advice
	closed.Given = op.To
	g.Advice = &closed
}

// What follows is the holder's part.

// waiver is the time for which this node may serve although the group's policy says no.
type waiver struct {
	epoch Epoch
	until Instant
}

// asAdvised returns the group's spec with the policy that counts on this node now. The waiver of a grant begins when this
// node first looks at it, and ends early once the server was seen writable: what makes it read-only later is not the state
// that the manager was about to lift.
func (m *Machine) asAdvised(g GroupState) GroupSpec {
	spec := g.Spec
	if h := m.held[spec.Name]; h != nil && h.stopping != 0 && h.draining && m.now.Before(h.stopBy) {
		spec.Policy = onAdvice // it is read-only for the sake of giving the group up in good order
		return spec
	}
	if g.Grant == nil || g.Grant.Waive == 0 || g.Owner != m.opt.Self {
		return spec
	}
	w := m.waivers[spec.Name]
	if w.epoch != g.Epoch {
		w = waiver{epoch: g.Epoch, until: m.now.Add(g.Grant.Waive.Duration())}
	}
	if m.health.Writable == Yes {
		w.until = min(w.until, m.now)
	}
	m.waivers[spec.Name] = w
	if m.now.Before(w.until) {
		spec.Policy = onAdvice
	}
	return spec
}
