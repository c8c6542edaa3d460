package consensus

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/remora-ha/remora/core"
)

// rule is what an oracle of the virtual cluster watches over.
type rule uint8

const (
	oneAnswers rule = 1 << iota // I1: no two machines answer for one address
	oneHolder                   // I2: no two processes believe that they hold a lease of one group
	oneLease                    // I2: no group is granted to another node inside a lease, and no lease goes on past that
	oneLog                      // Raft: one entry at an index, one arbiter in a term
	onDisks                     // Raft: what is applied is on the disks of a majority
	served                      // I6: some time after the last fault every group is served, by its owner
	sane                        // the harness itself works
	allRules   rule = 1<<iota - 1
)

func (r rule) String() string {
	var in []string
	for i, name := range []string{"one answers", "one holder", "one lease", "one log", "on disks", "served", "sane"} {
		if r&(1<<i) != 0 {
			in = append(in, name)
		}
	}
	return strings.Join(in, "+")
}

// violation is a rule that did not hold.
type violation struct {
	seed  uint64
	rule  rule
	at    time.Duration
	text  string
	trace string
}

func (v *violation) String() string {
	return fmt.Sprintf("seed %d breaks %q after %v: %s\n%s", v.seed, v.rule, v.at, v.text, v.trace)
}

// vStats count what happened, so that a run in which nothing happens is not taken for a good one.
type vStats struct {
	virtual                              time.Duration
	offices, grants, failovers, releases int
	faults                               [vFaults]int
	settled                              time.Duration // the longest time until all was well again
	closest                              time.Duration // from the end of a lease to the grant to another node, without a release
	answered, looked                     int           // how often a group had a node that answers, of all looks
}

func (s *vStats) add(o vStats) {
	s.virtual += o.virtual
	s.offices += o.offices
	s.grants += o.grants
	s.failovers += o.failovers
	s.releases += o.releases
	for i := range s.faults {
		s.faults[i] += o.faults[i]
	}
	s.settled = max(s.settled, o.settled)
	if o.closest != 0 && (s.closest == 0 || o.closest < s.closest) {
		s.closest = o.closest
	}
	s.answered += o.answered
	s.looked += o.looked
}

// oracle sees all machines at once, in true time, and knows nothing of how they decide.
type oracle struct {
	c     *vCluster
	rules rule

	mu      sync.Mutex
	broken  *violation
	stats   vStats
	log     map[core.Index]logged
	last    core.Index
	applied map[*process]core.Index // the last entry that each process has applied
	view    core.View
	offices map[core.Term]core.NodeName
	epochs  map[core.GroupName][]*epochRecord
	out     map[reportKey]time.Time // when a report went out
	held    map[core.GroupName]map[*process]time.Time
}

type logged struct {
	term core.Term
	id   uint64
}

type reportKey struct {
	inc core.Incarnation
	seq core.Seq
}

// epochRecord is one epoch of a group as the log tells it.
type epochRecord struct {
	epoch    core.Epoch
	owner    *machine
	from     time.Time // when the grant was committed
	lease    time.Time // the true end of the longest lease that was given
	released bool
	handover bool // it was granted while the epoch before was served
}

func newOracle(c *vCluster, rules rule) *oracle {
	if rules == 0 {
		rules = allRules
	}
	return &oracle{c: c, rules: rules | sane, log: map[core.Index]logged{}, applied: map[*process]core.Index{}, offices: map[core.Term]core.NodeName{},
		epochs: map[core.GroupName][]*epochRecord{}, out: map[reportKey]time.Time{}, held: map[core.GroupName]map[*process]time.Time{}}
}

func (o *oracle) locked(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f()
}

func (o *oracle) isBroken() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.broken != nil
}

// fail notes the first rule that is broken.
func (o *oracle) fail(r rule, format string, args ...any) {
	o.locked(func() { o.note(r, format, args...) })
}

// note is fail for who holds the lock.
func (o *oracle) note(r rule, format string, args ...any) {
	if o.broken != nil || o.rules&r == 0 {
		return
	}
	o.broken = &violation{seed: o.c.seed, rule: r, at: time.Since(o.c.began), text: fmt.Sprintf(format, args...)}
	o.c.trace(nil, "BROKEN: %v", o.broken.text)
}

// look checks that no two machines answer for one address, and no two processes hold a lease of one group.
func (o *oracle) look() {
	for _, g := range o.c.config.Groups {
		o.locked(func() { o.lookAtHolders(g.Name) })
		var who []core.NodeName
		for _, m := range o.c.machines {
			if m.kernel.answers(g.Name) {
				who = append(who, m.name)
			}
		}
		o.locked(func() {
			o.stats.looked++
			if len(who) > 0 {
				o.stats.answered++
			}
			if len(who) > 1 {
				o.note(oneAnswers, "%v answer for the address of %s", who, g.Name)
			}
		})
	}
}

// lookAtHolders is for who holds the lock.
func (o *oracle) lookAtHolders(g core.GroupName) {
	var who []core.NodeName
	for p, until := range o.held[g] {
		switch {
		case !p.alive():
			delete(o.held[g], p)
		case time.Now().Before(until):
			who = append(who, p.m.name)
		}
	}
	if len(who) > 1 {
		o.note(oneHolder, "%v hold a lease of %s", who, g)
	}
}

// holds notes until when a process believes that it holds a group.
func (o *oracle) holds(p *process, g core.GroupName, until time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.held[g] == nil {
		o.held[g] = map[*process]time.Time{}
	}
	o.held[g][p] = until
	o.lookAtHolders(g)
}

// sent notes when a report goes out. Up to a lease's length after that the kernel may hold the lease.
func (o *oracle) sent(p *process, seq core.Seq) {
	o.locked(func() { o.out[reportKey{p.inc, seq}] = time.Now() })
}

// leaseEnd returns the true end of a lease that rests on a report. The caller holds the lock.
func (o *oracle) leaseEnd(m *machine, k reportKey, ttl time.Duration) (time.Time, bool) {
	out, known := o.out[k]
	if !known {
		return time.Time{}, false
	}
	return m.clock.when(m.clock.at(out).Add(ttl)), true
}

// acked notes the leases that an ack gives.
func (o *oracle) acked(to *machine, a core.Ack) {
	o.mu.Lock()
	defer o.mu.Unlock()
	end, known := o.leaseEnd(to, reportKey{a.Incarnation, a.Seq}, a.TTL)
	if !known {
		return
	}
	for _, ge := range a.Groups {
		var next *epochRecord
		rs := o.epochs[ge.Group]
		i := len(rs) - 1
		for ; i >= 0 && rs[i].epoch != ge.Epoch; i-- {
			next = rs[i]
		}
		if i < 0 || rs[i].owner != to {
			o.note(oneLease, "%s is acked epoch %d of %s, which it does not own", to.name, ge.Epoch, ge.Group)
			return
		}
		rs[i].lease = later(rs[i].lease, end)
		if next != nil && !next.handover && !rs[i].released && next.owner != to && end.After(next.from) {
			o.note(oneLease, "epoch %d of %s is renewed for %s until %v past the grant of epoch %d to %s", ge.Epoch, ge.Group, to.name,
				end.Sub(next.from), next.epoch, next.owner.name)
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// committed is called when a node applies an entry; the first time counts.
func (o *oracle) committed(p *process, ev core.Committed) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lookForGap(p, ev.Index)
	now := logged{ev.Term, ev.Command.ID}
	if have, ok := o.log[ev.Index]; ok {
		if have != now {
			o.note(oneLog, "%s applies another entry at %d than was committed: term %d, not %d", p.m.name, ev.Index, now.term, have.term)
		}
		return
	}
	o.log[ev.Index] = now
	o.lookAtDisks(p, ev)
	if ev.Index < o.last {
		o.note(oneLog, "%s applies entry %d, which nobody had at %d", p.m.name, ev.Index, o.last)
		return
	}
	o.last, o.view = ev.Index, ev.View
	for i, op := range ev.Command.Ops {
		if ev.Outcomes[i].Refused != "" {
			continue
		}
		switch {
		case op.TakeOffice != nil:
			o.inOffice(op.TakeOffice.Node, ev.Term)
		case op.Release != nil:
			o.released(op.Release)
		case op.Grant != nil:
			o.granted(op.Grant, ev.View.Groups[op.Grant.Group].Epoch)
		}
	}
}

// lookForGap checks that a process that applies an entry has applied all commands that were committed before it: one may be
// lost to an entry of Raft's own, which nobody is told of. The caller holds the lock.
func (o *oracle) lookForGap(p *process, at core.Index) {
	for i := o.applied[p] + 1; i < at; i++ {
		if was, ok := o.log[i]; ok {
			o.note(oneLog, "%s applies entry %d without entry %d of term %d, which was committed", p.m.name, at, i, was.term)
		}
	}
	o.applied[p] = at
}

// lookAtDisks checks that an entry that is applied for the first time is on a majority of the disks. The caller holds the lock.
func (o *oracle) lookAtDisks(p *process, ev core.Committed) {
	var have []core.NodeName
	for _, m := range o.c.machines {
		if m.drive.has(uint64(ev.Index), uint64(ev.Term)) {
			have = append(have, m.name)
		}
	}
	if len(have) <= len(o.c.machines)/2 {
		o.note(onDisks, "%s applies entry %d of term %d, which of %d disks is on those of %v", p.m.name, ev.Index, ev.Term, len(o.c.machines), have)
	}
}

// restored is called when a process takes a snapshot for what it stands for.
func (o *oracle) restored(p *process, v core.View) {
	o.locked(func() { o.applied[p] = v.Index })
}

func (o *oracle) inOffice(n core.NodeName, t core.Term) {
	o.c.trace(nil, "%s takes office in term %d", n, t)
	o.stats.offices++
	if other, ok := o.offices[t]; ok && other != n {
		o.note(oneLog, "both %s and %s take office in term %d", other, n, t)
	}
	o.offices[t] = n
}

func (o *oracle) released(r *core.Release) {
	o.c.trace(nil, "release of epoch %d of %s by %s is committed: %s", r.Epoch, r.Group, r.Node, r.Reason)
	o.stats.releases++
	rs := o.epochs[r.Group]
	i := slices.IndexFunc(rs, func(rec *epochRecord) bool { return rec.epoch == r.Epoch })
	if i < 0 {
		return
	}
	rec := rs[i]
	if time.Now().Before(rec.lease) && rec.owner.kernel.answers(r.Group) {
		o.note(oneLease, "epoch %d of %s is released while %s answers for it", rec.epoch, r.Group, rec.owner.name)
	}
	rec.released = true
}

func (o *oracle) granted(g *core.Grant, epoch core.Epoch) {
	o.c.trace(nil, "grant of %s to %s in epoch %d is committed: %s", g.Group, g.To, epoch, g.Reason)
	o.stats.grants++
	to := o.c.named(g.To)
	rec := &epochRecord{epoch: epoch, owner: to, from: time.Now(), handover: g.Handover}
	if end, known := o.leaseEnd(to, reportKey{g.Incarnation, g.Seq}, g.TTL.Duration()); known {
		rec.lease = end
	}
	if rs := o.epochs[g.Group]; len(rs) > 0 {
		last := rs[len(rs)-1]
		if epoch <= last.epoch {
			o.note(oneLog, "%s is granted in epoch %d after epoch %d", g.Group, epoch, last.epoch)
		}
		if !last.released && last.owner != to && !g.Handover { // else the end of the last one is in the ledger later
			o.stats.failovers++
			left := last.lease.Sub(rec.from)
			if left > 0 {
				o.note(oneLease, "epoch %d of %s is granted to %s while the lease of %s in epoch %d lasts %v more",
					epoch, g.Group, g.To, last.owner.name, last.epoch, left)
			}
			if o.stats.closest == 0 || -left < o.stats.closest {
				o.stats.closest = -left
			}
		}
	}
	o.epochs[g.Group] = append(o.epochs[g.Group], rec)
}

// unserved returns what is not as it must be once all is well, or nothing.
func (o *oracle) unserved() string {
	o.mu.Lock()
	view, last := o.view, o.last
	o.mu.Unlock()
	for _, g := range o.c.config.Groups {
		owner := view.Groups[g.Name].Owner
		if owner == "" {
			return fmt.Sprintf("nobody owns %s", g.Name)
		}
		for _, m := range o.c.machines {
			if m.kernel.answers(g.Name) != (m.name == owner) {
				return fmt.Sprintf("%s owns %s, and of %s it is %t that it answers", owner, g.Name, m.name, m.name != owner)
			}
		}
	}
	for _, m := range o.c.machines {
		if m.proc == nil || m.proc.node.Load() == nil {
			return fmt.Sprintf("%s does not run", m.name)
		}
		if m.proc.node.Load().Term() == 0 {
			return fmt.Sprintf("%s does not vote", m.name)
		}
		if at := m.proc.node.Load().View().Index; at < last {
			return fmt.Sprintf("%s has applied entry %d of %d", m.name, at, last)
		}
	}
	return ""
}
