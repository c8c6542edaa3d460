package trace

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/remora-ha/remora/core"
)

// Moment is something that happens once in a takeover on one node.
type Moment uint8

// The moments, those of the old owner first, then the arbiter's, then the new owner's. Granted is everybody's.
const (
	// DrainBegun: the server of the old owner was told to end its writes, before the address was given up.
	DrainBegun Moment = iota
	// GivingUp: the old owner knew that it must give up (a fault detected, a switchover wanted), and began.
	GivingUp
	// Unbound: the addresses were read back as gone.
	Unbound
	// ReleaseSent: the arbiter was asked for the release, for the first time.
	ReleaseSent
	// LastWord: the owner's last report had come. Only where no request for the release had.
	LastWord
	// ReleaseCame: the first request for the release had come.
	ReleaseCame
	// Proposed: the grant was handed to Raft.
	Proposed
	// Granted: this node knew that the grant is committed; on the arbiter, that is its commit.
	Granted
	// Freed: the new owner heard that the old one had given up, where that was asked for by the grant itself.
	Freed
	// ServingHeard: the new owner's first report that it serves had come.
	ServingHeard
	// PromoteBegun: the server of the new owner was told to become writable.
	PromoteBegun
	// BindBegun: the addresses were asked for.
	BindBegun
	// Bound: they were bound and read back.
	Bound
	// FenceOpen: the kernel's fence let traffic pass.
	FenceOpen
	// Announced: the first round of announcements was sent.
	Announced

	moments
)

// String returns the moment's name in the documented form.
func (m Moment) String() string {
	return [moments]string{"drain_begun", "giving_up", "unbound", "release_sent", "last_word", "release_came", "proposed",
		"granted", "freed", "serving_heard", "promote_begun", "bind_begun", "bound", "fence_open", "announced"}[m]
}

// kept is how many takeovers a node remembers.
const kept = 64

// record is one takeover as this node sees it: the group's grant of the epoch. A moment that has not come is 0.
type record struct {
	group core.GroupName
	epoch core.Epoch
	at    [moments]core.Instant
}

// word is when the owner of a group was last heard to serve it.
type word struct {
	epoch core.Epoch
	at    core.Instant
}

// Recorder keeps the last takeovers in a ring. Recording needs neither memory nor a system call, and waits for nobody but a
// reader who copies the ring. Its methods may be called from several goroutines.
type Recorder struct {
	mu    sync.Mutex
	ring  [kept]record
	next  int
	words map[core.GroupName]*word
	phase func(p Phase, took time.Duration)
}

// NewRecorder returns an empty recorder.
func NewRecorder() *Recorder { return &Recorder{words: map[core.GroupName]*word{}} }

// Mark notes a moment of the takeover that began the epoch. The first time counts.
func (r *Recorder) Mark(group core.GroupName, epoch core.Epoch, m Moment, now core.Instant) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mark(group, epoch, m, now)
}

func (r *Recorder) mark(group core.GroupName, epoch core.Epoch, m Moment, now core.Instant) {
	c := r.record(group, epoch)
	if c.at[m] == 0 {
		c.at[m] = now
		r.ended(c, m)
	}
}

// find returns the record of a takeover, or nil.
func (r *Recorder) find(group core.GroupName, epoch core.Epoch) *record {
	for i := range r.ring {
		if c := &r.ring[i]; c.epoch == epoch && c.group == group {
			return c
		}
	}
	return nil
}

// record returns the record of a takeover, in the place of the oldest if it is a new one.
func (r *Recorder) record(group core.GroupName, epoch core.Epoch) *record {
	if c := r.find(group, epoch); c != nil {
		return c
	}
	c := &r.ring[r.next]
	r.next = (r.next + 1) % kept
	*c = record{group: group, epoch: epoch}
	return c
}

// Observe notes what a step of the machine says about takeovers. Its event counts as of now, and so do its actions, which
// are carried out right afterwards.
func (r *Recorder) Observe(now core.Instant, ev core.Event, actions []core.Action) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.happened(now, ev)
	for _, a := range actions {
		r.wanted(now, a)
	}
}

func (r *Recorder) happened(now core.Instant, ev core.Event) {
	switch ev := ev.(type) {
	case core.Received:
		r.received(now, ev)
	case core.Committed:
		for i, op := range ev.Command.Ops {
			switch {
			case ev.Outcomes[i].Refused != "":
			case op.Grant != nil:
				r.mark(op.Grant.Group, op.Grant.Prev+1, Granted, now)
			case op.Abort != nil:
				r.aborted(op.Abort.Group, op.Abort.Epoch+1)
			}
		}
	case core.UnbindDone:
		if ev.Gone && ev.Epoch != 0 {
			r.mark(ev.Group, ev.Epoch+1, Unbound, now)
		}
	case core.BindDone:
		if ev.Err == "" {
			r.mark(ev.Group, ev.Epoch, FenceOpen, now)
		}
	}
}

func (r *Recorder) received(now core.Instant, ev core.Received) {
	switch msg := ev.Msg.(type) {
	case core.ReleaseRequest:
		if c := r.record(msg.Group, msg.Epoch+1); c.at[ReleaseCame] == 0 && c.at[Granted] != 0 && c.at[BindBegun] == 0 {
			r.mark(msg.Group, msg.Epoch+1, Freed, now)
		}
		r.mark(msg.Group, msg.Epoch+1, ReleaseCame, now)
	case core.Notice:
		if msg.State.Owner != "" {
			r.mark(msg.Group, msg.State.Epoch, Granted, now)
		}
	case core.Report:
		for i := range msg.Holds {
			if h := &msg.Holds[i]; h.Phase == core.Serving {
				r.served(now, h.Group, h.Epoch)
			}
		}
	}
}

// served notes that the owner of a group was heard.
func (r *Recorder) served(now core.Instant, group core.GroupName, epoch core.Epoch) {
	w := r.words[group]
	switch {
	case w == nil:
		w = &word{}
		r.words[group] = w
	case epoch < w.epoch:
		return
	}
	if epoch > w.epoch {
		if c := r.find(group, epoch); c != nil && c.at[ServingHeard] == 0 {
			c.at[ServingHeard] = now
		}
	}
	w.epoch, w.at = epoch, now
}

func (r *Recorder) wanted(now core.Instant, a core.Action) {
	switch a := a.(type) {
	case core.DemoteServer:
		if a.Drain > 0 { // else it is the end of a holding or a stray writer that is dealt with
			r.drains(now, a.Group, a.Epoch+1)
		}
	case core.Unbind:
		if a.Epoch != 0 {
			r.mark(a.Group, a.Epoch+1, GivingUp, now)
		}
	case core.Send:
		if msg, ok := a.Msg.(core.ReleaseRequest); ok {
			r.mark(msg.Group, msg.Epoch+1, ReleaseSent, now)
		}
	case core.Propose:
		for _, op := range a.Command.Ops {
			if op.Grant != nil {
				r.proposed(now, op.Grant)
			}
		}
	case core.PromoteServer:
		r.mark(a.Group, a.Epoch, PromoteBegun, now)
	case core.Bind:
		r.mark(a.Group, a.Epoch, BindBegun, now)
	}
}

// drains notes the last drain, unless the address was given up before.
func (r *Recorder) drains(now core.Instant, group core.GroupName, epoch core.Epoch) {
	if c := r.record(group, epoch); c.at[GivingUp] == 0 {
		c.at[DrainBegun] = now
	}
}

// aborted forgets the drain of a switchover that did not take place.
func (r *Recorder) aborted(group core.GroupName, epoch core.Epoch) {
	if c := r.find(group, epoch); c != nil {
		c.at[DrainBegun] = 0
	}
}

// proposed notes the last proposal of a grant: one that failed before it is part of the wait.
func (r *Recorder) proposed(now core.Instant, g *core.Grant) {
	c := r.record(g.Group, g.Prev+1)
	first := c.at[Proposed] == 0
	c.at[Proposed] = now
	if w := r.words[g.Group]; w != nil && w.epoch == g.Prev && c.at[ReleaseCame] == 0 && !g.Handover {
		c.at[LastWord] = w.at
	}
	if first {
		r.ended(c, Proposed)
	}
}

// Pieces returns what is remembered of takeovers in which this node had a part, the oldest first.
func (r *Recorder) Pieces(node core.NodeName) []Piece {
	r.mu.Lock()
	ring, next := r.ring, r.next
	r.mu.Unlock()
	var ps []Piece
	for i := range kept {
		if p := ring[(next+i)%kept].piece(node); p.part() {
			ps = append(ps, p)
		}
	}
	return ps
}

// handover reports whether the grant came before the owner gave up.
func (c *record) handover() bool {
	return c.at[Granted] != 0 && c.at[GivingUp] != 0 && !c.at[GivingUp].Before(c.at[Granted])
}

// piece leaves out what a node has no use for that had another part.
func (c *record) piece(node core.NodeName) Piece {
	p := Piece{Node: string(node), Group: string(c.group), Epoch: uint64(c.epoch)}
	first := core.Instant(0)
	for m, at := range c.at {
		switch Moment(m) {
		case LastWord, ReleaseCame:
			if c.at[Proposed] == 0 {
				continue
			}
		case Freed:
			if c.at[BindBegun] == 0 {
				continue
			}
		case ServingHeard:
			if c.at[Proposed] == 0 && !c.handover() {
				continue
			}
		}
		if at == 0 {
			continue
		}
		if first == 0 || at.Before(first) {
			first = at
		}
		p.Marks = append(p.Marks, Mark{Name: Moment(m).String(), US: int64(at)})
	}
	for i, m := range p.Marks {
		p.Marks[i].US = core.Instant(m.US).Sub(first).Microseconds()
	}
	slices.SortStableFunc(p.Marks, func(a, b Mark) int { return cmp.Compare(a.US, b.US) })
	return p
}
