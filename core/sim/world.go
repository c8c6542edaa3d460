package sim

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/remora-ha/remora/core"
)

// Kernel says whether the kernel holds the leases too.
type Kernel uint8

// The choices.
const (
	KernelBySeed Kernel = iota
	KernelLeaseOn
	KernelLeaseOff
	// KernelLifetimes is a cluster in which some kernels have address lifetimes and no fence.
	KernelLifetimes
)

// Options say what to run. All but Trace decide on the outcome.
type Options struct {
	Seed uint64
	// Nodes is the size of the cluster: 3, 5 or 7; 0 lets the seed choose.
	Nodes  int
	Kernel Kernel
	// Break breaks a rule of the protocol on purpose.
	Break Break
	// Rules are those whose oracles count; 0 means all.
	Rules Rule
	// Trace, if set, gets a line for each thing that happens.
	Trace io.Writer
	// faults restricts the kinds of faults; nil lets the seed choose.
	faults []faultKind
	// promote sees to it that a group has policy promote, readers that there are readers, slow that replicas are.
	promote, readers, slow bool
}

// Failure is a rule that did not hold.
type Failure struct {
	Seed uint64
	Rule Rule
	// At is the true time since the beginning.
	At   time.Duration
	Text string
}

func (f *Failure) Error() string {
	return fmt.Sprintf("seed %d breaks %v at %v: %s", f.Seed, f.Rule, f.At.Round(time.Microsecond), f.Text)
}

// Result is what a run has come to.
type Result struct {
	// Failure is nil if all rules held.
	Failure *Failure
	// Virtual is the true time that was simulated, Steps how often a machine was told something.
	Virtual time.Duration
	Steps   int
	Stats   Stats
}

// Stats count what happened in runs, so that a run in which nothing happens is not taken for a good one.
type Stats struct {
	Grants, Releases, Offices, Faults, Boots, Failovers, Stops int
	// Drained counts servers that were made read-only for a stop, Opened those that were made writable for a start, Undone those
	// that were made writable again after a stop.
	Drained, Opened, Undone int
	// Balanced counts the moves for balance alone.
	Balanced int
	// Handovers counts the grants of groups that were still served, Awaited those of them whose old lease was waited for.
	Handovers, Awaited int
	// Closest is the shortest time between the end of a lease and the grant to another node that did not wait for a
	// release; 0 if there was none.
	Closest time.Duration
}

// epochOfTime is where true time begins, so that no instant is 0.
const epochOfTime = int64(time.Second)

// world is one cluster in virtual time.
type world struct {
	opt  Options
	dice dice
	// sqlDice is chance for servers, so that worlds without policy promote are what they were before there was any.
	sqlDice dice
	// readDice is chance for readers, likewise.
	readDice dice
	now      int64
	q        queue
	net      network
	nodes    []*node
	names    []core.NodeName
	plan     plan
	or       oracle
	trace    *tracer
	steps    int
	failed   *Failure
	over     bool
	stats    Stats

	newest     core.Config // the newest configuration file
	calm       int64       // when the faults end, by plan
	conflictAt int64       // when a probe last met somebody
	ticket     uint64
	settledFor int
}

// Run simulates one cluster with one seed. The same options give the same run, to the last step.
func Run(opt Options) Result { return new(world).run(opt) }

// run uses the memory of an earlier run again.
func (w *world) run(opt Options) Result {
	q, log := w.q, w.or.log
	q.reset()
	if opt.Rules == 0 {
		opt.Rules = AllRules
	}
	*w = world{opt: opt, q: q, dice: newDice(opt.Seed), sqlDice: newDice(^opt.Seed), readDice: newDice(opt.Seed ^ 1<<40), now: epochOfTime}
	w.or.log = log
	w.or.init(w)
	if opt.Trace != nil {
		w.trace = &tracer{w: w, out: opt.Trace}
		w.trace.header()
	}
	w.makePlan()
	w.calm = w.now + int64(3*w.plan.timing.TTL+w.plan.faultsFor)
	w.newest = w.firstConfig()
	w.makeNodes()
	w.makeServers()
	w.makeReplicas()
	w.scheduleFaults()
	if w.plan.mha {
		w.after(3*w.plan.timing.TTL, w.managePlanned)
	}
	w.check()
	for w.failed == nil && !w.over {
		at, it := w.q.pop()
		w.now = at
		w.dispatch(it)
	}
	return Result{Failure: w.failed, Virtual: time.Duration(w.now - epochOfTime), Steps: w.steps, Stats: w.count()}
}

func (w *world) makeNodes() {
	for i := range w.plan.nodes {
		n := &node{w: w, id: i, name: nodeName(i), clock: w.makeClock(), file: w.newest}
		n.health = core.Health{State: core.Healthy, Writable: core.Yes, Replicating: core.No, MHAWatches: core.No, MHAActs: core.No}
		if w.plan.mha && i > 0 {
			n.health.Writable = core.No
		}
		n.raft = raft{n: n, vote: -1, log: []entry{{}}}
		n.kern.n = n
		n.unfenced = w.plan.lifetimes && w.dice.chance(0.7)
		w.nodes, w.names = append(w.nodes, n), append(w.names, n.name)
	}
	for _, n := range w.nodes {
		n.comesBack = true
		w.after(w.dice.about(w.plan.timing.TTL/4), n.boot)
	}
}

// after calls f after a while, whatever processes do.
func (w *world) after(d time.Duration, f func()) {
	w.q.push(w.now+int64(d), item{kind: worldCall, call: f})
}

func (w *world) fail(r Rule, format string, args ...any) {
	if r == Raft {
		w.over = true // what a broken Raft does next means nothing
	}
	if w.failed != nil || w.opt.Rules&r == 0 {
		return
	}
	w.failed = &Failure{Seed: w.opt.Seed, Rule: r, At: time.Duration(w.now - epochOfTime), Text: fmt.Sprintf(format, args...)}
	w.trace.line(nil, "BROKEN: "+r.String(), w.failed.Text)
}

// dispatch lets an item happen, or later if its process is frozen or its Raft loop stands still.
func (w *world) dispatch(it item) {
	if it.kind == worldCall {
		it.call()
		return
	}
	n := w.nodes[it.node]
	if n.proc == nil || it.gen != 0 && it.gen != n.gen {
		return
	}
	if w.now < n.frozenUntil || len(n.frozen) > 0 {
		n.frozen = append(n.frozen, it)
		return
	}
	switch it.kind {
	case raftMessage, raftCall, raftElection:
		if n.raft.writing > 0 {
			n.raft.waiting = append(n.raft.waiting, it)
			return
		}
	}
	switch it.kind {
	case processCall, raftCall:
		it.call()
	case processEvent:
		n.proc.step(it.ev)
	case timer:
		n.proc.timerFired()
	case datagram:
		n.datagramCame(int(it.from), it.msg)
	case raftMessage:
		n.raft.receive(int(it.from), it.raft)
	case raftElection:
		n.raft.electionTimer()
	case raftBeat:
		if it.num == n.raft.num {
			n.raft.beatTimer()
		}
	}
}

// check looks from time to time, once the faults are over, whether the cluster has become as it must be (I6, I9).
func (w *world) check() {
	every := w.plan.timing.TTL / 4
	w.after(every, w.check)
	if w.now < w.calm {
		return
	}
	w.keepCalm()
	rule, why := w.or.unsettled()
	if why == "" {
		w.settledFor++
		w.over = w.settledFor == 3
		return
	}
	w.settledFor = 0
	if w.now > w.deadline() {
		w.fail(rule, "%v after the last fault %s", time.Duration(w.now-w.calm), why)
		w.over = true
	}
}

// deadline is when everything must be well again: some leases for starts and elections, and where a probe has met
// somebody, the time for which the machine then stays away.
func (w *world) deadline() int64 {
	from := w.calm
	const barred = 31 * time.Second
	if w.conflictAt != 0 {
		from = max(from, w.conflictAt+int64(barred))
	}
	if w.plan.promote {
		from += int64(10 * time.Second) // rounds of a choice, and what people then do
	}
	if w.plan.readers > 0 {
		from += int64(14*w.plan.timing.TTL + 5*time.Second) // the cool-down, and the moves for balance after it
	}
	return from + int64(12*w.plan.timing.TTL+3*time.Second)
}

func (w *world) count() Stats {
	handed := map[core.GroupName]core.Epoch{}
	for _, e := range w.or.log {
		if e.cmd == nil {
			continue
		}
		for _, op := range e.cmd.Ops {
			switch {
			case op.Grant != nil:
				w.stats.Grants++
				if op.Grant.Handover {
					w.stats.Handovers++
					handed[op.Grant.Group] = op.Grant.Prev
				}
			case op.Release != nil:
				w.stats.Releases++
				if handed[op.Release.Group] == op.Release.Epoch && strings.HasPrefix(op.Release.Reason, "the lease of") {
					w.stats.Awaited++
				}
			case op.TakeOffice != nil:
				w.stats.Offices++
			case op.Move != nil && strings.HasPrefix(op.Move.Reason, "balance"):
				w.stats.Balanced++
			}
		}
	}
	for g := range w.or.epochs {
		for i, rec := range w.or.epochs[g] {
			if i == 0 || w.or.epochs[g][i-1].released || w.or.epochs[g][i-1].owner == rec.owner {
				continue
			}
			w.stats.Failovers++
			w.stats.closest(time.Duration(rec.from - w.or.epochs[g][i-1].lease))
		}
	}
	for _, n := range w.nodes {
		w.stats.Boots += len(n.history)
	}
	return w.stats
}
