package core

import "fmt"

// A switchover of a group whose server needs not be drained is committed while its owner still serves: the grant names the
// holding that has to end first. With it the owner gives up, and the new one claims as soon as it hears that from the owner
// itself; so nothing but one datagram lies between the two. If that word does not come, the old lease is waited for and its
// end goes through the ledger, like any release.

// Handover is the holding that has to end before the owner of a group may claim it.
type Handover struct {
	From  NodeName `json:"from"`
	Epoch Epoch    `json:"epoch"`
	// Unfenced is that of the grant of Epoch.
	Unfenced bool `json:"unfenced,omitempty"`
}

// groupAt names a group on a node.
type groupAt struct {
	group GroupName
	node  NodeName
}

// awaits reports whether the ledger has a holding that is not released: the group's, or the one that has to end before it.
func (g GroupState) awaits(n NodeName, e Epoch) bool {
	return g.Owner == n && g.Epoch == e || g.yields(n, e)
}

// yields reports whether a holding is to end for the sake of the present grant.
func (g GroupState) yields(n NodeName, e Epoch) bool {
	return g.Handover != nil && g.Handover.From == n && g.Handover.Epoch == e
}

// handedOn says what a group waits for that is on its way from one node to another.
func (g GroupState) handedOn() string {
	return fmt.Sprintf("the group is on its way from %s to %s", g.Handover.From, g.Owner)
}

// What follows is the ledger's part.

// handOver returns what a grant makes of the holding before it, or why that can not be.
func (g GroupState) handOver(op Grant) (*Handover, string) {
	switch {
	case g.Handover != nil:
		return nil, g.handedOn()
	case !op.Handover || g.Owner == "":
		return nil, ""
	case g.Owner == op.To:
		return nil, fmt.Sprintf("%s owns the group already", op.To)
	case g.Paused:
		return nil, "the group is paused: resume it first"
	case g.Next != nil:
		return nil, "the configuration of the group changes"
	}
	return &Handover{From: g.Owner, Epoch: g.Epoch, Unfenced: g.unfenced()}, ""
}

// releaseHandedOn notes that the holding before the present one has ended.
func releaseHandedOn(g *GroupState, e *Entry, op Release) string {
	if op.Epoch != g.Handover.Epoch {
		return fmt.Sprintf("the release is of epoch %d, and that of epoch %d comes first", op.Epoch, g.Handover.Epoch)
	}
	e.Kind, e.Epoch, e.Node, e.Reason = KindRelease, g.Handover.Epoch, g.Handover.From, op.Reason
	g.Handover = nil
	return ""
}

// What follows is the holders' part.

// releaseHeard takes the word of a node that a holding of its own has ended. That is true for ever, so it may come early or
// twice.
func (m *Machine) releaseHeard(from NodeName, r ReleaseRequest) {
	if _, known := m.fresh[r.Group]; known {
		at := groupAt{r.Group, from}
		m.ended[at] = max(m.ended[at], r.Epoch)
	}
	m.releaseRequested(from, r)
}

// free reports whether nothing is left of the holding before the present one: by the ledger, or by the word of its owner.
func (m *Machine) free(name GroupName, g GroupState) bool {
	return g.Handover == nil || m.ended[groupAt{name, g.Handover.From}] == g.Handover.Epoch
}

// await waits with a grant for the end of the holding before it. The lease is renewed meanwhile.
func (m *Machine) await(h *holding, g GroupState) {
	if !m.free(h.group, g) || m.tooLate(h) {
		return
	}
	m.dirty = true // the first renewal must not wait for the next heartbeat
	m.claim(h, g)
}

// What follows is the arbiter's part.

// handoverWatch is what the arbiter knows of a group that is handed over in an epoch.
type handoverWatch struct {
	epoch  Epoch
	until  Instant // when the old owner's lease is over for certain, or what its word needs no longer wait for
	ending uint64  // the command on its way that brings its end into the ledger, 0 if none is
}

// handsOver reports whether the owner of a group can hand it over: it serves, and all voters have been heard, so that they run a
// release whose ledger knows what that is.
func (m *Machine) handsOver(name GroupName, g GroupState) bool {
	if g.Spec.Policy == Promote || g.Next != nil || !m.free(name, g) || !m.serves(g.Owner, name, g.Epoch) {
		return false
	}
	for _, v := range m.voters {
		if p := m.peers[v]; p == nil || !p.heard {
			return false
		}
	}
	return true
}

// handOverTo proposes to grant a group to a node that is to claim it once its owner has given it up, and returns the number
// of the command. The owner's lease is renewed until that is committed: a slow disk costs nobody anything.
func (m *Machine) handOverTo(name GroupName, g GroupState, to NodeName, why string) uint64 {
	a := &m.arb
	var ops []Op
	if g.Handover != nil {
		ops = append(ops, endOfHandover(g, g.Reason)) // this grant comes before that is in the ledger
	}
	op, notAfter := m.grantTo(name, g, to, why)
	op.Grant.Handover = true
	id := m.propose(notAfter, append(ops, op)...)
	a.inflight[name], a.handing[name] = id, id
	return id
}

// endHandover brings the end of the holding before into the ledger, once its owner has said so or its lease is over for
// certain. With the owner's word there is no hurry: the new one, which has heard it too, has its clients to serve first, and its
// lease is renewed meanwhile.
func (m *Machine) endHandover(name GroupName, g GroupState) {
	a := &m.arb
	w := a.handovers[name]
	if w.epoch != g.Epoch {
		w = handoverWatch{epoch: g.Epoch, until: a.until[name]} // which is that of both leases, and nobody renews the old one any more
	}
	why := fmt.Sprintf("the lease of %s is over", g.Handover.From)
	if m.free(name, g) {
		why = g.Reason
		w.until = min(w.until, m.now.Add(m.opt.Timing.Heartbeat))
		if m.ended[groupAt{name, g.Owner}] == g.Epoch {
			w.until = m.now // it has given the group back, and nobody is served
		}
	}
	if w.ending == 0 && !m.now.Before(w.until) {
		w.ending = m.propose(0, endOfHandover(g, why))
	}
	a.handovers[name] = w
}

// endOfHandover is the release of the holding before.
func endOfHandover(g GroupState, why string) Op {
	return Op{Release: &Release{Group: g.Spec.Name, Epoch: g.Handover.Epoch, Node: g.Handover.From, Reason: why}}
}

// handoverUnended has a command that was to end a handover tried again, if it came to nothing.
func (m *Machine) handoverUnended(id uint64) {
	for name, w := range m.arb.handovers {
		if w.ending == id {
			w.ending = 0
			m.arb.handovers[name] = w
		}
	}
}

func (m *Machine) handoverWake(earlier func(Instant)) {
	for name, w := range m.arb.handovers {
		if g := m.view.Groups[name]; g.Handover != nil && g.Epoch == w.epoch && w.ending == 0 {
			earlier(w.until)
		}
	}
}

// destination returns the node that a group is on its way to by an operator's word or the arbiter's own, or nothing.
func (m *Machine) destination(g GroupState) NodeName {
	switch {
	case g.Move != nil:
		return g.Move.To
	case !m.free(g.Spec.Name, g):
		return g.Owner
	}
	return ""
}

// switchover is the reason for giving a group up that a node is to have.
func switchover(to NodeName, reason string) string {
	return ReasonSwitchover + string(to) + ": " + reason
}
