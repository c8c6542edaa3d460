package sim

import (
	"strings"
	"time"

	"github.com/remora-ha/remora/core"
)

// promoted is what the oracle of I10 knows of one epoch of the group of policy promote.
type promoted struct {
	acked    txns // what clients were told is committed, up to the grant
	handed   bool // it began with a planned switchover
	accepted bool // an operator has accepted what is lost
	// told are the servers on whose word the choice rests.
	told     []int
	writable bool // its owner's server was made writable
}

// acknowledged notes a transaction that a client was told is committed.
func (o *oracle) acknowledged(n *node) { o.acked[n.id] = n.sql.executed[n.id] }

// promotionGranted begins an epoch of policy promote.
func (o *oracle) promotionGranted(id uint64, op *core.Grant, before core.GroupState) {
	if before.Spec.Policy != core.Promote {
		return
	}
	o.promoted = promoted{acked: o.acked, told: o.basis[id], accepted: strings.HasPrefix(op.Reason, "an operator has accepted")}
	o.promoted.handed = before.Move != nil && before.Move.Drained && before.Move.To == op.To && before.Owner != ""
}

// proposing notes on whose word the grant in a command rests: those whose answers this process has got in its last round.
func (o *oracle) proposing(p *process, c core.Command) {
	for _, op := range c.Ops {
		if op.Grant == nil || len(p.watch.told) == 0 {
			continue
		}
		if o.basis == nil {
			o.basis = map[uint64][]int{}
		}
		for i, f := range p.watch.told {
			if f.Round == p.watch.round && f.Round != 0 && f.Epoch == op.Grant.Prev && f.Group == op.Grant.Group {
				o.basis[c.ID] = append(o.basis[c.ID], i)
			}
		}
	}
}

// toldFrozen notes an answer that a process gets. One to an earlier choice may come as late as now, and nothing rests on it.
func (w *watch) toldFrozen(from core.NodeName, f core.Frozen) {
	if f.Err == "" && f.Round == w.round {
		w.told[nodeIndex(from)] = f
	}
}

// ownsServer checks that a server becomes writable on its daemon's order only in an epoch of its own and inside the lease.
func (o *oracle) ownsServer(p *process, a core.PromoteServer) bool {
	rec, next := o.record(groupIndex(a.Group), a.Epoch)
	n := p.n
	switch {
	case rec == nil || rec.owner != n.id:
		o.w.fail(I10, "%s makes its server writable in epoch %d, which it was never granted", n.name, a.Epoch)
		return false
	case o.w.now > rec.lease:
		o.w.fail(I10, "%s makes its server writable in epoch %d, %v after its lease", n.name, a.Epoch, ms(o.w.now-rec.lease))
	case next != nil && next.owner != n.id:
		o.w.fail(I10, "%s makes its server writable in epoch %d after %s was granted epoch %d", n.name, a.Epoch, o.w.nodes[next.owner].name, next.epoch)
	}
	return next == nil && o.view.Groups[a.Group].Epoch == a.Epoch
}

// writable checks I10 when a server becomes writable on its daemon's order.
func (o *oracle) writable(p *process, a core.PromoteServer) {
	p.watch.groups[groupIndex(a.Group)].promoted = a.Epoch
	n := p.n
	if !o.ownsServer(p, a) {
		return
	}
	pr := &o.promoted
	if lost := n.sql.executed.lacks(pr.acked); pr.handed && lost > 0 {
		o.w.fail(I10, "the switchover to %s in epoch %d has lost %d transactions that clients were told are committed", n.name, a.Epoch, lost)
	}
	for _, other := range pr.told {
		s := o.w.nodes[other].sql
		if lost := n.sql.executed.lacks(s.received); !pr.accepted && !pr.writable && s.frozen && lost > 0 {
			o.w.fail(I10, "%s becomes the primary in epoch %d and lacks %d transactions of %s, on whose word the choice rests", n.name, a.Epoch, lost, s.n.name)
		}
	}
	pr.writable = true
	o.acked = n.sql.executed // what was lost in a failover is lost, and not to be asked for again
}

// drainGrace is how much longer than its transactions may go on a server may take to be drained.
const drainGrace = 3 * time.Second

// undoAsked checks that a server is not made writable again while a report that the process has says that another one may be
// writable, or that MHA is at work.
func (o *oracle) undoAsked(p *process, a core.PromoteServer) {
	if !a.Undo {
		return
	}
	for _, n := range p.ledger.View().Config.Nodes {
		h := p.watch.reports[nodeIndex(n.Name)].Health
		if !n.Witness && n.Name != p.n.name && (h.State != core.Healthy || h.Writable != core.No || h.MHAActs != core.No) {
			o.w.fail(I10, "%s makes its server writable again in epoch %d although that of %s is %v, writable: %v", p.n.name, a.Epoch, n.Name,
				h.State, h.Writable)
		}
	}
}

// boundWritable checks, when a node begins to bind, that its server was made writable before.
func (o *oracle) boundWritable(p *process, a core.Bind) {
	if a.Spec.Policy == core.Promote && p.watch.groups[groupIndex(a.Group)].promoted != a.Epoch {
		o.w.fail(I10, "%s binds %s in epoch %d before its server was made writable", p.n.name, a.Group, a.Epoch)
	}
}

// setAside checks that a server is set aside for a reason: it really has what its source lacks.
func (o *oracle) setAside(n *node, a core.FollowServer, has, source txns) {
	for _, other := range o.w.nodes {
		if other.serverAddress() == a.Source && other.sql.executed.lacks(has) == 0 && other.sql.writable {
			o.w.fail(I10, "%s is set aside with %v, which %s has all of; it was compared with %v", n.name, has, other.name, source)
		}
	}
}
