package core

import (
	"fmt"
	"maps"
	"slices"
)

// GroupState is the ledger's entry of a group. The values behind its pointers are never changed, so a GroupState may be
// copied freely.
type GroupState struct {
	// Index is the log position of the entry that changed the group last. Of two states the one with the higher index is
	// the newer.
	Index Index     `json:"index"`
	Spec  GroupSpec `json:"spec"`
	Epoch Epoch     `json:"epoch"`
	// Owner is empty when nobody holds the group.
	Owner NodeName `json:"owner,omitempty"`
	// Grant is the grant of the present epoch, also after its release.
	Grant *Grant `json:"grant,omitempty"`
	// Since is when ownership changed last, in Unix milliseconds of the proposer's wall clock.
	Since  int64  `json:"since"`
	Reason string `json:"reason,omitempty"`
	Paused bool   `json:"paused,omitempty"`
	// Proved is set once the addresses have been served: somebody has asked the link whether they are free.
	Proved bool `json:"proved,omitempty"`
	// Move is the intent to bring the group to another node; it ends with the next grant.
	Move *Move `json:"move,omitempty"`
	// Handover is set as long as the owner may not claim, because the holding before is not known to have ended.
	Handover *Handover `json:"handover,omitempty"`
	// Advice is the outside operation that is open or was closed by the present grant, nil if there is none.
	Advice *Advice `json:"advice,omitempty"`
	// Next replaces Spec once the group is released.
	Next *GroupSpec `json:"next,omitempty"`
	// Retired says that the configuration has the group no more. The entry stays, so that its epochs only rise even if a
	// group of this name comes back.
	Retired bool `json:"retired,omitempty"`
}

// Office says which arbiter acts.
type Office struct {
	Node        NodeName    `json:"node"`
	Incarnation Incarnation `json:"incarnation"`
	Term        Term        `json:"term"`
	Index       Index       `json:"index"`
}

// View is a copy of the ledger's present state without its history.
type View struct {
	Index  Index  `json:"index"`
	Term   Term   `json:"term"`
	Config Config `json:"config"`
	// Longest is the longest lease that may still be out.
	Longest Millis                   `json:"longest_ms"`
	Office  Office                   `json:"office"`
	Groups  map[GroupName]GroupState `json:"groups"`
}

// Entry is one line of the history.
type Entry struct {
	Index  Index     `json:"index"`
	At     int64     `json:"at"` // Unix milliseconds of the proposer's wall clock
	Kind   string    `json:"kind"`
	Group  GroupName `json:"group,omitempty"`
	Epoch  Epoch     `json:"epoch,omitempty"`
	Node   NodeName  `json:"node,omitempty"`
	From   NodeName  `json:"from,omitempty"`
	Reason string    `json:"reason,omitempty"`
}

// The kinds of history entries.
const (
	KindOffice    = "office"
	KindConfigure = "configure"
	KindGrant     = "grant"
	KindRelease   = "release"
	KindMove      = "move"
	KindDrain     = "drain"
	KindAbort     = "abort"
	KindPause     = "pause"
	KindResume    = "resume"
	KindRecover   = "recover"
)

// Outcome says what became of one operation of a command.
type Outcome struct {
	// Refused is empty when the operation took effect, else the reason why it had none.
	Refused string
	// Group is the group that the operation touched, empty for those that touch none.
	Group GroupName
}

// maxHistory bounds the history; the oldest entries are forgotten first.
const maxHistory = 1000

// recoverStep is added to every epoch by a Recover, so that nothing granted by the lost majority can be equal or newer.
const recoverStep = 1 << 20

// Ledger is the replicated state. Apply is deterministic and has no side effect: the same commands at the same indexes
// give the same ledger on every node. It is not safe for concurrent use.
type Ledger struct {
	view    View
	history []Entry
}

// NewLedger returns an empty ledger.
func NewLedger() *Ledger {
	return &Ledger{view: View{Groups: map[GroupName]GroupState{}}}
}

// View returns a copy of the present state.
func (l *Ledger) View() View { return l.view.clone() }

func (v View) clone() View {
	v.Groups = maps.Clone(v.Groups)
	return v
}

// History returns a copy of the history, oldest first.
func (l *Ledger) History() []Entry { return slices.Clone(l.history) }

// Apply carries out a committed command. It returns one outcome for each operation.
func (l *Ledger) Apply(index Index, term Term, c Command) []Outcome {
	if index <= l.view.Index {
		panicf("core: ledger applied index %d after %d", index, l.view.Index)
	}
	l.view.Index, l.view.Term = index, term
	outs := make([]Outcome, 0, len(c.Ops))
	for _, op := range c.Ops {
		outs = append(outs, l.apply(index, term, c, op))
	}
	return outs
}

func (l *Ledger) apply(index Index, term Term, c Command, op Op) Outcome {
	if group, rests := op.restsOnOffice(); rests && c.Office != 0 && c.Office != l.view.Office.Term {
		return Outcome{Group: group, Refused: fmt.Sprintf("it was decided in the office of term %d, and that of term %d has followed",
			c.Office, l.view.Office.Term)}
	}
	e := Entry{Index: index, At: c.At, Node: c.By}
	switch {
	case op.TakeOffice != nil:
		l.view.Office = Office{Node: op.TakeOffice.Node, Incarnation: op.TakeOffice.Incarnation, Term: term, Index: index}
		e.Kind, e.Node = KindOffice, op.TakeOffice.Node
	case op.Configure != nil:
		if why := l.configure(index, *op.Configure); why != "" {
			return Outcome{Refused: why}
		}
		e.Kind, e.Reason = KindConfigure, fmt.Sprintf("version %d", op.Configure.Version)
	case op.Settle != nil:
		return Outcome{Refused: l.settle(*op.Settle)}
	case op.Grant != nil:
		return l.change(op.Grant.Group, index, c, e, func(g *GroupState, e *Entry) string { return l.grant(g, e, *op.Grant) })
	case op.Release != nil:
		return l.change(op.Release.Group, index, c, e, func(g *GroupState, e *Entry) string { return release(g, e, *op.Release) })
	case op.Move != nil:
		return l.change(op.Move.Group, index, c, e, func(g *GroupState, e *Entry) string { return l.move(g, e, *op.Move) })
	case op.Drain != nil:
		return l.change(op.Drain.Group, index, c, e, func(g *GroupState, e *Entry) string { return drain(g, e, *op.Drain) })
	case op.Abort != nil:
		return l.change(op.Abort.Group, index, c, e, func(g *GroupState, e *Entry) string { return abort(g, e, *op.Abort) })
	case op.Pause != nil:
		return l.change(op.Pause.Group, index, c, e, func(g *GroupState, e *Entry) string { return pause(g, e, *op.Pause) })
	case op.Advise != nil:
		return l.change(op.Advise.Group, index, c, e, func(g *GroupState, e *Entry) string { return l.advise(g, e, *op.Advise) })
	case op.Withdraw != nil:
		return l.change(op.Withdraw.Group, index, c, e, func(g *GroupState, e *Entry) string { return withdraw(g, e, *op.Withdraw) })
	case op.Remark != nil:
		return l.change(op.Remark.Group, index, c, e, func(g *GroupState, e *Entry) string { return remark(g, e, *op.Remark) })
	default:
		return Outcome{Refused: "operation without content"}
	}
	l.remember(e)
	return Outcome{}
}

// restsOnOffice reports whether an operation is sound only as long as the arbiter that proposed it is in office, and the
// group that it touches.
func (op Op) restsOnOffice() (GroupName, bool) {
	switch {
	case op.Grant != nil:
		return op.Grant.Group, true
	case op.Release != nil:
		return op.Release.Group, true
	case op.Move != nil:
		return op.Move.Group, true
	case op.Drain != nil:
		return op.Drain.Group, true
	case op.Abort != nil:
		return op.Abort.Group, true
	case op.Settle != nil:
		return "", true
	case op.Advise != nil:
		return op.Advise.Group, true
	case op.Withdraw != nil:
		return op.Withdraw.Group, true
	}
	return "", false
}

// change applies f to a copy of a group and keeps the copy only if f does not refuse.
func (l *Ledger) change(name GroupName, index Index, c Command, e Entry, f func(*GroupState, *Entry) string) Outcome {
	g, ok := l.view.Groups[name]
	if !ok {
		return Outcome{Group: name, Refused: fmt.Sprintf("there is no group %q", name)}
	}
	was := g
	e.Group = name
	if why := f(&g, &e); why != "" {
		return Outcome{Group: name, Refused: why}
	}
	if g.Epoch < was.Epoch {
		panicf("core: ledger epoch of %s went back: had %d, got %d at index %d", name, was.Epoch, g.Epoch, index)
	}
	g.Index = index
	if g.Epoch != was.Epoch || g.Owner != was.Owner {
		g.Since, g.Reason = c.At, e.Reason
	}
	l.view.Groups[name] = g
	l.remember(e)
	return Outcome{Group: name}
}

func (l *Ledger) remember(e Entry) {
	l.history = append(l.history, e)
	if n := len(l.history) - maxHistory; n > 0 {
		l.history = slices.Delete(l.history, 0, n)
	}
}

func (l *Ledger) grant(g *GroupState, e *Entry, op Grant) string {
	switch {
	case g.Retired:
		return "the group is retired"
	case op.Prev != g.Epoch:
		return fmt.Sprintf("the grant follows epoch %d, but the group is in epoch %d", op.Prev, g.Epoch)
	}
	if why := l.mayOwn(op.To); why != "" {
		return why
	}
	if why := l.view.taken(*g); why != "" {
		return why
	}
	if why := g.adviceForbids(op); why != "" {
		return why
	}
	before, why := g.handOver(op)
	if why != "" {
		return why
	}
	e.Kind, e.Epoch, e.Node, e.From, e.Reason = KindGrant, g.Epoch+1, op.To, g.Owner, op.Reason
	// Without a release the owner's lease has run out while it served; only a release can say that it never did.
	g.Proved = g.Proved || g.Owner != ""
	g.change()
	g.adviceGranted(op)
	g.Epoch, g.Owner, g.Grant, g.Move, g.Handover = g.Epoch+1, op.To, &op, nil, before
	return ""
}

func (l *Ledger) mayOwn(n NodeName) string {
	i := slices.IndexFunc(l.view.Config.Nodes, func(s NodeSpec) bool { return s.Name == n })
	switch {
	case i < 0:
		return fmt.Sprintf("%q is not a node of the cluster", n)
	case l.view.Config.Nodes[i].Witness:
		return fmt.Sprintf("%s is a witness: it votes and never owns", n)
	}
	return ""
}

func release(g *GroupState, e *Entry, op Release) string {
	switch {
	case g.Handover != nil:
		return releaseHandedOn(g, e, op)
	case op.Epoch != g.Epoch:
		return fmt.Sprintf("the release is of epoch %d, but the group is in epoch %d", op.Epoch, g.Epoch)
	case g.Owner == "":
		return fmt.Sprintf("epoch %d is released already", op.Epoch)
	}
	e.Kind, e.Epoch, e.Node, e.Reason = KindRelease, g.Epoch, g.Owner, op.Reason
	g.Owner = ""
	g.Proved = g.Proved || !op.Unproved
	g.change()
	if g.Retired {
		g.Spec.Addresses = nil
	}
	return ""
}

func (l *Ledger) move(g *GroupState, e *Entry, op Move) string {
	switch {
	case g.Retired:
		return "the group is retired"
	case op.Epoch != g.Epoch || g.Owner == "":
		return fmt.Sprintf("the move is of epoch %d, but the group is in epoch %d, owner %q", op.Epoch, g.Epoch, g.Owner)
	case g.Owner == op.To:
		return fmt.Sprintf("%s owns the group already", op.To)
	case g.Paused:
		return "the group is paused: resume it first"
	case g.awaitsStart():
		return g.awaitedStart()
	case g.Handover != nil:
		return g.handedOn()
	}
	if why := l.mayOwn(op.To); why != "" {
		return why
	}
	e.Kind, e.Epoch, e.Node, e.From, e.Reason = KindMove, g.Epoch, op.To, g.Owner, op.Reason
	op.Began, op.Drained, op.Executed = e.Index, false, ""
	g.Move = &op
	return ""
}

func drain(g *GroupState, e *Entry, op Drain) string {
	if why := noMove(g, op.Epoch, op.Move); why != "" {
		return why
	}
	if g.Move.Drained {
		return "the owner's server was drained before"
	}
	mv := *g.Move
	mv.Drained, mv.Executed = true, op.Executed
	e.Kind, e.Epoch, e.Node, e.From, e.Reason = KindDrain, g.Epoch, mv.To, g.Owner, "the owner's server is read-only and idle"
	g.Move = &mv
	return ""
}

func abort(g *GroupState, e *Entry, op Abort) string {
	if why := noMove(g, op.Epoch, op.Move); why != "" {
		return why
	}
	e.Kind, e.Epoch, e.Node, e.From, e.Reason = KindAbort, g.Epoch, g.Move.To, g.Owner, op.Reason
	g.Move = nil
	return ""
}

// noMove returns why there is no such switchover any more, or nothing. Once its target is granted the epoch is another.
func noMove(g *GroupState, e Epoch, began Index) string {
	switch {
	case e != g.Epoch:
		return fmt.Sprintf("it is of epoch %d, but the group is in epoch %d", e, g.Epoch)
	case g.Move == nil || g.Move.Began != began:
		return fmt.Sprintf("the switchover that began at index %d is over", began)
	}
	return ""
}

func pause(g *GroupState, e *Entry, op Pause) string {
	e.Kind, e.Epoch, e.Node, e.Reason = KindResume, g.Epoch, g.Owner, op.Reason
	if op.On {
		e.Kind = KindPause
	}
	g.Paused = op.On
	return ""
}

// Recover raises the epochs of all groups by 2^20 and drops their owners. It is for the ledger of a node that goes on
// alone after the majority was lost for good, while no process uses it: nothing that the lost ones may have granted is as
// new as what comes after. at is for people, in Unix milliseconds.
func (l *Ledger) Recover(by NodeName, at int64, reason string) {
	for name, g := range l.view.Groups {
		g.Epoch, g.Owner, g.Move, g.Handover, g.Advice, g.Since, g.Reason = g.Epoch+recoverStep, "", nil, nil, nil, at, reason
		l.view.Groups[name] = g
	}
	l.remember(Entry{Index: l.view.Index, At: at, Kind: KindRecover, Node: by, Reason: reason})
}

// change adopts the spec that waited for the end of the holding. Nobody has served what it binds.
func (g *GroupState) change() {
	if g.Next != nil {
		g.Spec, g.Next, g.Proved = *g.Next, nil, false
	}
}

// panicf stops the process on a state that must be impossible.
func panicf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
