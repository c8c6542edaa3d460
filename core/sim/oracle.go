package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/remora-ha/remora/core"
)

// Rule names what an oracle watches over: an invariant of package core, or the sanity of the simulated Raft.
type Rule uint16

// The rules.
const (
	I1  Rule = 1 << iota // one holder
	I2                   // grants wait
	I3                   // only what was granted
	I4                   // no false announcement
	I5                   // giving up waits for nothing, claims are not late
	I6                   // liveness
	I7                   // epochs only rise
	I9                   // what Remora put into the kernel it finds again, and nothing else's
	I10                  // one writer
	// Raft is the sanity of the simulation itself: one leader per term, one entry per index.
	Raft

	// AllRules is every rule. I8 is not one of its own: with the kernel lease on, I1 is asserted for dead and frozen
	// processes too.
	AllRules = I1 | I2 | I3 | I4 | I5 | I6 | I7 | I9 | I10 | Raft
)

// String returns the names of the rules in r.
func (r Rule) String() string {
	names := []string{"I1", "I2", "I3", "I4", "I5", "I6", "I7", "I9", "I10", "Raft"}
	var in []string
	for i, n := range names {
		if r&(1<<i) != 0 {
			in = append(in, n)
		}
	}
	return strings.Join(in, "+")
}

// oracle sees everything in true time and knows nothing of how the machine decides.
type oracle struct {
	w       *world
	log     []entry      // what is committed; log[0] is empty
	ledger  *core.Ledger // the state after it
	view    core.View
	epochs  [maxGroups][]holdingRecord
	leaders map[core.Term]int
	stops   map[uint64]stopAsked // that were not answered yet

	acked    txns // what clients were told is committed, and what no failover has lost
	promoted promoted
	basis    map[uint64][]int // on whose word the grant in a command rests
}

// holdingRecord is one epoch of a group as the log tells it.
type holdingRecord struct {
	epoch    core.Epoch
	owner    int
	from     int64 // when the grant was committed
	lease    int64 // true end of the longest lease that was given in this epoch
	released bool
	handover bool  // it was granted while the epoch before was served
	word     bool  // its owner has said that it is over
	awaited  int64 // when it ended without that word, 0 if it did not
}

// lasts reports whether an epoch that a handover is to end has not: its owner may not have heard of that yet.
func (rec *holdingRecord) lasts() bool { return !rec.word && rec.awaited == 0 }

// past returns from when on no lease of an epoch may be out because of the one after it, 0 if there is no such time.
func (rec *holdingRecord) past(next *holdingRecord) int64 {
	switch {
	case next == nil || next.owner == rec.owner:
		return 0
	case next.handover:
		return rec.awaited
	case rec.released:
		return 0
	}
	return next.from
}

func (o *oracle) init(w *world) {
	*o = oracle{w: w, log: append(o.log[:0], entry{}), ledger: core.NewLedger(), leaders: map[core.Term]int{}, stops: map[uint64]stopAsked{}}
	o.view = o.ledger.View()
}

// elected checks that a term has one leader.
func (o *oracle) elected(t core.Term, node int) {
	if other, ok := o.leaders[t]; ok && other != node {
		o.w.fail(Raft, "both %s and %s lead in term %d", o.w.nodes[other].name, o.w.nodes[node].name, t)
	}
	o.leaders[t] = node
}

// committed is called whenever a node learns that an entry is committed; the first time counts.
func (o *oracle) committed(index int, e entry) {
	if index < len(o.log) {
		if have := o.log[index]; have.term != e.term || have.cmd != e.cmd {
			o.w.fail(Raft, "two different entries are committed at index %d, of terms %d and %d", index, have.term, e.term)
		}
		return
	}
	o.log = append(o.log, e)
	if e.cmd == nil {
		return
	}
	before := o.view
	outs := o.ledger.Apply(core.Index(index), e.term, *e.cmd)
	o.view = o.ledger.View()
	o.w.trace.commit(index, e, outs)
	for i, op := range e.cmd.Ops {
		switch {
		case outs[i].Refused != "":
		case op.Release != nil:
			o.released(op.Release, before)
		case op.Grant != nil:
			o.granted(op.Grant)
			o.promotionGranted(e.cmd.ID, op.Grant, before.Groups[op.Grant.Group])
		}
	}
}

func (o *oracle) lastEpoch(g int) *holdingRecord {
	if n := len(o.epochs[g]); n > 0 {
		return &o.epochs[g][n-1]
	}
	return nil
}

// record returns the record of an epoch, and of the one after it.
func (o *oracle) record(g int, e core.Epoch) (rec, next *holdingRecord) {
	for i := len(o.epochs[g]) - 1; i >= 0; i-- {
		if r := &o.epochs[g][i]; r.epoch == e {
			return r, next
		} else {
			next = r
		}
	}
	return nil, nil
}

// released checks that a release, whoever proposed it, comes when nothing is served any more.
func (o *oracle) released(op *core.Release, before core.View) {
	rec, _ := o.record(groupIndex(op.Group), op.Epoch)
	if rec == nil {
		return
	}
	if what := o.remains(op.Group, rec, before.Groups[op.Group].Spec); what != "" {
		o.w.fail(I2, "epoch %d of %s is released while %s", rec.epoch, op.Group, what)
	}
	rec.released = true
	if !rec.word {
		rec.awaited = o.w.now
	}
}

// remains says what the owner of an epoch still has of a group, if its lease lasts.
func (o *oracle) remains(name core.GroupName, rec *holdingRecord, spec core.GroupSpec) string {
	n := o.w.nodes[rec.owner]
	for _, pre := range spec.Addresses {
		c := &n.kern.addrs[addressIndex(pre.Addr())]
		if o.w.now < rec.lease && c.bound && c.ours && c.group == groupIndex(name) && c.epoch <= rec.epoch {
			return fmt.Sprintf("%s has %v bound and a lease for %v more", n.name, pre.Addr(), ms(rec.lease-o.w.now))
		}
	}
	return ""
}

// handedOver checks that nothing is left of the holding before when a group that was handed over is claimed.
func (o *oracle) handedOver(p *process, a core.Bind) {
	g := o.view.Groups[a.Group]
	if g.Handover == nil || g.Epoch != a.Epoch {
		return
	}
	if rec, _ := o.record(groupIndex(a.Group), g.Handover.Epoch); rec != nil {
		if what := o.remains(a.Group, rec, a.Spec); what != "" {
			o.w.fail(I2, "%s binds %s in epoch %d while %s", p.n.name, a.Group, a.Epoch, what)
		}
	}
}

// granted checks that the epoch before is over, unless the group is handed over, and notes the lease that comes with the grant.
func (o *oracle) granted(op *core.Grant) {
	g, to := groupIndex(op.Group), nodeIndex(op.To)
	epoch := o.view.Groups[op.Group].Epoch
	if rec := o.lastEpoch(g); rec != nil {
		if epoch <= rec.epoch {
			o.w.fail(I7, "%s is granted in epoch %d after epoch %d", op.Group, epoch, rec.epoch)
		}
		if o.view.Groups[op.Group].Handover == nil && !rec.released && rec.owner != to && o.w.now < rec.lease {
			o.w.fail(I2, "epoch %d of %s is granted to %s while the lease of %s in epoch %d lasts %v more",
				epoch, op.Group, op.To, o.w.nodes[rec.owner].name, rec.epoch, ms(rec.lease-o.w.now))
		}
	}
	rec := holdingRecord{epoch: epoch, owner: to, from: o.w.now, handover: o.view.Groups[op.Group].Handover != nil}
	if sent, ok := o.w.nodes[to].outAt(op.Incarnation, op.Seq); ok {
		rec.lease = o.w.nodes[to].clock.when(sent.Add(op.TTL.Duration()))
	}
	o.epochs[g] = append(o.epochs[g], rec)
}

// sent notes when a report goes out, that an owner has given up, and which leases an ack gives. What counts is the last moment before the sending: up
// to TTL after that the kernel may hold the lease, a little longer than the holder does.
func (o *oracle) sent(p *process, to core.NodeName, m core.Message) {
	switch m := m.(type) {
	case core.Report:
		p.watch.sent[m.Seq%maxReports].out = p.n.clock.at(o.w.now)
	case core.ReleaseRequest:
		if rec, _ := o.record(groupIndex(m.Group), m.Epoch); rec != nil && rec.owner == p.n.id {
			rec.word = true
		}
	}
	ack, ok := m.(core.Ack)
	if !ok {
		return
	}
	n := o.w.nodes[nodeIndex(to)]
	asked, known := n.outAt(ack.Incarnation, ack.Seq)
	if !known {
		return
	}
	end := n.clock.when(asked.Add(ack.TTL))
	for _, ge := range ack.Groups {
		rec, next := o.record(groupIndex(ge.Group), ge.Epoch)
		if rec == nil || rec.owner != n.id {
			o.w.fail(I2, "%s is acked epoch %d of %s, which it does not own", to, ge.Epoch, ge.Group)
			return
		}
		rec.lease = max(rec.lease, end)
		if past := rec.past(next); past != 0 && end > past {
			o.w.fail(I2, "epoch %d of %s is renewed for %s past the end that epoch %d has waited for", ge.Epoch, ge.Group, to, next.epoch)
		}
	}
}

// outAt returns when a process of the node put a report on the wire, by the node's clock.
func (n *node) outAt(inc core.Incarnation, seq core.Seq) (core.Instant, bool) {
	for _, p := range slices.Backward(n.history) {
		if p.inc == inc {
			return p.watch.outAt(seq)
		}
	}
	return 0, false
}

// voted checks that a node votes only once it takes part, where Raft itself is started so late.
func (o *oracle) voted(n *node) {
	if w := &n.proc.watch; o.w.plan.waitToVote && n.clock.at(o.w.now) < w.ready {
		o.w.fail(Raft, "%s votes %v before it takes part", n.name, w.ready.Sub(n.clock.at(o.w.now)))
	}
}

// bound checks I1 when an address was bound, and that it is one of Remora's own doing.
func (o *oracle) bound(n *node, a int) {
	o.w.trace.line(n, "bound", address(a).String())
	if n.kern.answers(a) {
		o.answering(n, a)
	}
}

// answering checks I1 when a node begins to answer for an address.
func (o *oracle) answering(n *node, a int) {
	for _, other := range o.w.nodes {
		if other != n && other.kern.answers(a) {
			o.w.fail(I1, "%s begins to answer for %v while %s answers for it", n.name, address(a), other.name)
		}
	}
}

// opens checks I5 when a process is about to open the fence for an address: what was given up stays closed.
func (o *oracle) opens(p *process, open core.Opening, a int) {
	if p.gate[groupIndex(open.Group)] >= open.Epoch {
		o.w.fail(I5, "%s opens the fence for %v of %s in epoch %d, which it has given up", p.n.name, address(a), open.Group, open.Epoch)
	}
}

func (o *oracle) unbound(n *node, a int) { o.w.trace.line(n, "unbound", address(a).String()) }

// handGrace is how old an address that a person has bound must be: the news of it takes a moment.
const handGrace = int64(20 * time.Millisecond)

// removes checks I9 when an Unbind that was asked for at a time is about to remove an address.
func (o *oracle) removes(p *process, a core.Unbind, asked int64, i int) {
	c := &p.n.kern.addrs[i]
	if c.bound && !c.ours && asked-c.byHand > handGrace && p.watch.groups[groupIndex(a.Group)].bindEpoch != a.Epoch {
		o.w.fail(I9, "%s removes %v of %s, which somebody else has bound and it never did", p.n.name, address(i), a.Group)
	}
}

// applied checks I7 on one node, and that all nodes get the same ledger from the same log.
func (o *oracle) applied(p *process, index int, v core.View) {
	if index != len(o.log)-1 {
		return // compared when it was the newest, if ever; the machine's own check goes on in told
	}
	for name, g := range groupsOf(v) {
		if want := o.view.Groups[name]; g.Epoch != want.Epoch || g.Owner != want.Owner || g.Index != want.Index {
			o.w.fail(I7, "%s has %s in epoch %d of %q at index %d, the log says epoch %d of %q", p.n.name, name,
				g.Epoch, g.Owner, index, want.Epoch, want.Owner)
		}
	}
}

// unsettled returns what is not yet as it must be once all faults are over, and the rule that asks for it, or nothing.
func (o *oracle) unsettled() (Rule, string) {
	for name, g := range groupsOf(o.view) {
		if why := o.unserved(name, g); why != "" {
			return I6, why
		}
	}
	if why := o.unbalanced(); why != "" {
		return I6, why
	}
	if v := o.w.newest.Version; o.view.Config.Version != v {
		return I6, fmt.Sprintf("the ledger has configuration %d, the files %d", o.view.Config.Version, v)
	}
	for _, n := range o.w.nodes {
		for a := range n.kern.addrs {
			if c := &n.kern.addrs[a]; c.bound && c.ours && o.ownerOf(a) != n.id {
				return I9, fmt.Sprintf("%s still has %v bound", n.name, address(a))
			}
		}
	}
	return 0, ""
}

// unserved returns why a group is not served as it must be, or nothing.
func (o *oracle) unserved(name core.GroupName, g core.GroupState) string {
	switch {
	case g.Retired && g.Owner != "":
		return fmt.Sprintf("%s is retired and %s still owns it", name, g.Owner)
	case g.Retired, g.Owner == "" && g.Spec.Role == core.Reader && o.nobodyFollows():
		return ""
	case g.Owner == "":
		return fmt.Sprintf("nobody owns %s", name)
	case g.Next != nil:
		return fmt.Sprintf("the new configuration of %s has not taken effect", name)
	case g.Handover != nil:
		return fmt.Sprintf("the end of epoch %d of %s is not in the ledger", g.Handover.Epoch, name)
	}
	owner := o.w.nodes[nodeIndex(g.Owner)]
	if g.Spec.Policy == core.Promote && !owner.sql.writable {
		return fmt.Sprintf("%s owns %s in epoch %d and its server is read-only", g.Owner, name, g.Epoch)
	}
	for _, pre := range g.Spec.Addresses {
		if a := addressIndex(pre.Addr()); !owner.kern.answers(a) || owner.kern.addrs[a].epoch != g.Epoch {
			return fmt.Sprintf("%s owns %s in epoch %d and does not answer for %v in that epoch", g.Owner, name, g.Epoch, pre.Addr())
		}
	}
	return ""
}

// ownerOf returns the node that owns an address by the log, -1 if none does.
func (o *oracle) ownerOf(a int) int {
	for _, g := range groupsOf(o.view) {
		for _, pre := range g.Spec.Addresses {
			if g.Owner != "" && addressIndex(pre.Addr()) == a {
				return nodeIndex(g.Owner)
			}
		}
	}
	return -1
}
