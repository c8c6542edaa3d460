package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/remora-ha/remora/bench/lab"
	"github.com/remora-ha/remora/bench/peers"
	"github.com/remora-ha/remora/bench/report"
)

// contender is a system that is measured.
type contender struct {
	peers.System
	// quick says whether the quick set has it.
	quick bool
	// crowds says whether it is put through the moves of many addresses.
	crowds bool
	// mha marks MHA: its servers are a primary and replicas instead of a ring, and it takes minutes, so it is put through
	// few scenarios.
	mha bool
	// oracle marks the floor, which is there to have each kind of takeover once.
	oracle bool
}

// lineUp returns all systems.
func lineUp(l *lab.Lab) []contender {
	return []contender{
		{System: peers.Remora{Lab: l, Profile: "lan"}, quick: true, crowds: true},
		{System: peers.Remora{Lab: l, Profile: "fast"}, quick: true, crowds: true},
		{System: peers.Fastest(l), quick: true, crowds: true},
		{System: peers.Checked(l), quick: true},
		{System: peers.Brisk(l)},
		{System: peers.Common(l), quick: true},
		{System: &peers.Floor{Lab: l}, quick: true, oracle: true},
		{System: peers.FastestUCARP(l)},
		{System: peers.CommonUCARP(l)},
		{System: &peers.MHA{Lab: l}, mha: true},
	}
}

// takes reports whether a scenario is one for the system.
func (c contender) takes(t trial) bool {
	_, isRemora := c.System.(peers.Remora)
	return (isRemora || !t.remora) && (c.crowds || t.addresses == 0) && (!c.mha || t.mha) && (!c.oracle || t.oracle)
}

// limit bounds a scenario with the way back to health.
func (c contender) limit() time.Duration {
	if c.mha {
		return trialLimit + c.Patience()
	}
	return trialLimit
}

// trial is a scenario that every system can be put through.
type trial struct {
	name string
	// quick says whether the quick set has it.
	quick bool
	// probe has every node asked by its hardware address meanwhile. It costs time on the cores, so only some do it.
	probe bool
	// regulars has clients that keep their connections run meanwhile.
	regulars bool
	// addresses, if not 0, is how many move at once, and has each of them asked until it is answered.
	addresses int
	// arrange, if set, brings Remora's leadership to where the scenario wants it.
	arrange func(context.Context, *lab.Lab) error
	// remora marks a scenario that other systems do not know, mha one that MHA has an answer to, oracle one that the floor is
	// put through.
	remora, mha, oracle bool
	// gone tells the floor that the owner's node is out of reach afterwards.
	gone bool
	// ready, if set, makes the owner ready for what comes.
	ready func(context.Context, *lab.Lab, string) error
	act   func(context.Context, *lab.Lab, peers.System, string) error
	undo  func(*lab.Lab, peers.System, string) error
}

// trials returns all scenarios. A server is large when it has touched so many MiB.
func trials(ballast int) []trial {
	apart := func(same bool) func(context.Context, *lab.Lab) error {
		return func(ctx context.Context, l *lab.Lab) error {
			_, _, err := arrange(ctx, l, same)
			return err
		}
	}
	signal := func(sig syscall.Signal) func(context.Context, *lab.Lab, peers.System, string) error {
		return func(_ context.Context, l *lab.Lab, _ peers.System, owner string) error {
			return l.Node(owner).SignalServer(sig)
		}
	}
	drop := func(_ context.Context, l *lab.Lab, _ peers.System, owner string) error {
		return l.Drop(owner, lab.Both)
	}
	killed, planned := signal(syscall.SIGKILL), func(ctx context.Context, l *lab.Lab, s peers.System, owner string) error {
		return s.Move(ctx, owner, other(l, owner))
	}
	all := []trial{
		{name: "mysqld-killed", quick: true, mha: true, oracle: true, act: killed},
		{name: "mysqld-stopped", quick: true, mha: true, oracle: true, act: signal(syscall.SIGTERM), undo: stopped},
		{name: "planned", quick: true, mha: true, oracle: true, act: planned},
		{name: "mysqld-hung", quick: true, act: signal(syscall.SIGSTOP), undo: func(l *lab.Lab, _ peers.System, owner string) error {
			return l.Node(owner).SignalServer(syscall.SIGCONT)
		}},
		{name: "node-vanished", quick: true, mha: true, oracle: true, gone: true, arrange: apart(false), act: drop},
		{name: "node-vanished-leader", quick: true, remora: true, arrange: apart(true), act: drop},
		{name: "mysqld-killed-clients", quick: true, regulars: true, act: killed},
		{name: "planned-clients", quick: true, regulars: true, act: planned},
		{name: "node-vanished-clients", regulars: true, arrange: apart(false), act: drop},
		{name: "mysqld-killed-large", ready: loaded(ballast), act: killed},
		{name: "daemon-killed", probe: true, act: func(_ context.Context, _ *lab.Lab, s peers.System, owner string) error { return s.Kill(owner) }},
		{name: "daemon-frozen", probe: true,
			act:  func(_ context.Context, _ *lab.Lab, s peers.System, owner string) error { return s.Freeze(owner) },
			undo: func(_ *lab.Lab, s peers.System, owner string) error { return s.Thaw(owner) }},
		{name: "parted", probe: true, act: func(_ context.Context, l *lab.Lab, _ peers.System, owner string) error {
			var rest []string
			for _, n := range l.Nodes() {
				if n.Name != owner {
					rest = append(rest, n.Name)
				}
			}
			return l.Part([]string{owner}, rest)
		}},
	}
	for _, n := range []int{1, 10, 100, 1000} {
		all = append(all, trial{name: report.CrowdScenario(n), quick: n < 1000, addresses: n, act: killed})
	}
	return all
}

// shutdownLimit is how long a server that was asked to end may take for it.
const shutdownLimit = 20 * time.Second

// stopped waits until the owner's server has ended: one that still does would be taken for one that runs, and not be started
// again.
func stopped(l *lab.Lab, _ peers.System, owner string) error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownLimit)
	defer cancel()
	return l.Node(owner).Server().Wait(ctx)
}

// loaded makes the owner's server one that has touched mib MiB. Half of what the machine has left must suffice: the
// servers' files want some, too.
func loaded(mib int) func(context.Context, *lab.Lab, string) error {
	return func(ctx context.Context, l *lab.Lab, owner string) error {
		free, err := lab.AvailableMiB()
		if err != nil {
			return err
		}
		if free < 2*mib {
			return fmt.Errorf("%w: %d MiB of memory are free, and a server of %d MiB needs twice that: use a smaller --ballast",
				errNotNow, free, mib)
		}
		return l.Node(owner).Ballast(ctx, mib)
	}
}

// watchers are the observers that only some scenarios have.
type watchers struct {
	prober       *lab.Prober
	roll         *lab.RollCall
	single, pool *lab.Regulars
}

const (
	// clients of the pool, each with its own connection.
	poolSize = 50
	// singleEvery and poolEvery are how often a client asks that keeps its connection.
	singleEvery, poolEvery = 2 * time.Millisecond, 100 * time.Millisecond
	// regularLimit is how long such a client waits for an answer before it gives the connection up.
	regularLimit = time.Second
)

// watch starts what a scenario has watched besides.
func watch(ctx context.Context, l *lab.Lab, t trial, owner string) (w watchers, err error) {
	if t.probe {
		if w.prober, err = l.StartProber(lab.ProberOptions{}); err == nil {
			err = w.prober.WaitAnswers(ctx, owner, time.Now(), 10)
		}
	}
	if t.regulars {
		if w.single, err = l.StartRegulars(1, singleEvery, regularLimit); err == nil {
			w.pool, err = l.StartRegulars(poolSize, poolEvery, regularLimit)
		}
		for _, r := range []*lab.Regulars{w.single, w.pool} {
			if err == nil {
				err = r.WaitAnswered(ctx, time.Now())
			}
		}
	}
	if err == nil && t.addresses > 0 {
		w.roll, err = l.StartRollCall(ctx, owner)
	}
	return w, err
}

// wait waits until what was started has seen the end of a takeover.
func (w watchers) wait(ctx context.Context) error {
	if w.roll != nil {
		select {
		case <-w.roll.All():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for _, r := range []*lab.Regulars{w.single, w.pool} {
		if r != nil {
			if err := r.WaitAnswered(ctx, time.Now()); err != nil {
				return err
			}
		}
	}
	return nil
}

// stop ends the observers. It may be called again.
func (w watchers) stop() {
	if w.prober != nil {
		w.prober.Stop()
	}
	if w.roll != nil {
		w.roll.Stop()
	}
	for _, r := range []*lab.Regulars{w.single, w.pool} {
		if r != nil {
			r.Stop()
		}
	}
}

// figures adds to a run what the observers have seen of a step.
func (w watchers) figures(r lab.Report, out *report.Run) error {
	out.Double, out.Last, out.Reconnect, out.Pool = report.Missing, report.Missing, report.Missing, report.Missing
	if w.prober != nil {
		answers, err := w.prober.Answers()
		if err != nil {
			return err
		}
		out.Double = 0
		for _, d := range answers.DoubleAnswers() {
			out.Double = max(out.Double, msOf(d.Duration()))
		}
	}
	if w.roll != nil {
		n, last, err := w.roll.Answered()
		if err != nil {
			return err
		}
		if n == out.Addresses {
			out.Last = msOf(last.Sub(r.Zero))
		}
	}
	if w.single != nil {
		out.Reconnect, out.Pool = msOf(w.single.Gap(r.Zero, r.Until)), msOf(w.pool.Wait(r.Zero, r.Until))
	}
	return nil
}

// runTrial runs one scenario, in which the owner suffers, and leaves the laboratory as the scenario does.
func runTrial(ctx context.Context, l *lab.Lab, s contender, t trial, owner string) (report.Run, error) {
	out := report.Run{System: s.Name(), Scenario: t.name, Addresses: t.addresses}
	w, err := watch(ctx, l, t, owner)
	defer w.stop()
	if err != nil {
		return out, err
	}
	step := lab.Step{Name: t.name,
		Act: func(ctx context.Context) error {
			err := t.act(ctx, l, s.System, owner)
			if floor, ok := s.System.(*peers.Floor); ok && err == nil {
				err = floor.Faulted(ctx, owner, t.gone)
			}
			return err
		},
		Done: func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, s.Patience())
			defer cancel()
			_, err := l.WaitMoved(ctx, owner)
			out.Moved = err == nil
			if out.Moved {
				err = l.WaitServed(ctx, l.Stream())
			}
			if err == nil {
				err = w.wait(ctx)
			}
			if errors.Is(err, context.DeadlineExceeded) {
				return nil // not moved, or not served in time: that is a result
			}
			return err
		}}
	r, err := l.Run(ctx, step)
	w.stop()
	if err == nil {
		err = w.figures(r, &out)
	}
	if err == nil {
		out.Frames, err = l.Announcements(r)
	}
	out.Gap, out.Longest = msOf(r.Client.Gap), msOf(r.Client.Longest)
	out.Failed, out.Connections = r.Client.Failed, r.Client.Attempts
	out.Phases = phases(r, remembered(ctx, l, s, r), l.Stream().Attempts(r.Zero))
	return out, err
}

// goBack undoes a scenario and brings laboratory and system back to health.
func goBack(ctx context.Context, l *lab.Lab, s contender, t trial, owner string) error {
	if t.undo != nil {
		if err := t.undo(l, s.System, owner); err != nil {
			return err
		}
	}
	return errors.Join(mend(ctx, l, !s.mha), s.Settle(ctx))
}

// mend heals the network, starts the servers that were killed, and waits until those of a ring replicate.
func mend(ctx context.Context, l *lab.Lab, ring bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := l.Mend(ctx); err != nil || !ring {
		return err
	}
	return l.WaitReplicating(ctx)
}

const (
	// traceLimit bounds the wait for what the daemons remember, each question for which takes two seconds where one is silent.
	traceLimit = 5 * time.Second
	// traceEvery is the time between two questions. An owner acts on the news of its grant, and its ledger comes after.
	traceEvery = 50 * time.Millisecond
)

// remembered returns what the daemons remember of the takeover that was watched, or nothing: what only they tell of is missing then.
func remembered(ctx context.Context, l *lab.Lab, s contender, r lab.Report) lab.Takeover {
	if _, isRemora := s.System.(peers.Remora); !isRemora || r.After == "" || r.After == r.Before {
		return lab.Takeover{}
	}
	ctx, cancel := context.WithTimeout(ctx, traceLimit)
	defer cancel()
	for {
		last, err := l.Node(r.After).LastTakeover(ctx)
		if err == nil && last.Node == r.After {
			return last
		}
		select {
		case <-ctx.Done():
			return lab.Takeover{}
		case <-time.After(traceEvery):
		}
	}
}

// phases reads the trace of a takeover off the time line: daemons' logs, the kernel's events, frames and the client; and off what the
// daemons remember, each by its own clock.
func phases(r lab.Report, t lab.Takeover, attempts []lab.Attempt) [report.Moments]float64 {
	find := func(node, what string) float64 {
		for _, e := range r.Events {
			if !e.Time.Before(r.Zero) && e.Node == node && e.What == what {
				return msOf(e.Time.Sub(r.Zero))
			}
		}
		return report.Missing
	}
	proposed, granted, open := recalled(r, t)
	return [report.Moments]float64{find(r.Before, "giving up"), find(r.Before, lab.WhatAddrRemoved), proposed, committed(r), granted,
		find(r.After, lab.WhatAddrAdded), open, find(r.After, lab.WhatAnnounced), firstAnswer(r, attempts)}
}

// firstAnswer is when the new owner answered the client first. The longest gap, whose end the time line has, may be another: that of
// a planned move is hardly longer than the time between two attempts.
func firstAnswer(r lab.Report, attempts []lab.Attempt) float64 {
	at := float64(report.Missing)
	for _, a := range attempts {
		if ms := msOf(a.End.Sub(r.Zero)); a.Result == lab.Answered && a.Server == r.After && !a.End.Before(r.Zero) && (at == report.Missing || ms < at) {
			at = ms
		}
	}
	return at
}

// committed is when the first node knew the last grant to the new owner as committed. The new owner's own log comes later: it acts
// on the news that the leader sends.
func committed(r lab.Report) float64 {
	epoch, at := 0.0, float64(report.Missing)
	for _, e := range r.Events {
		if n, ok := e.Attrs["epoch"].(float64); ok && n > epoch && e.What == "grant committed" && e.Attrs["owner"] == r.After &&
			!e.Time.Before(r.Zero) {
			epoch, at = n, msOf(e.Time.Sub(r.Zero))
		}
	}
	return at
}

// recalled returns when the grant was handed to Raft, when the new owner knew of it, and when its fence was open. A node's clock tells
// how long before another moment that was, of which its log has a line.
func recalled(r lab.Report, t lab.Takeover) (proposed, granted, open float64) {
	proposed, granted, open = report.Missing, report.Missing, report.Missing
	before := func(p lab.TracePiece, moment, anchor, line string) float64 {
		ago, known := p.Between(moment, anchor)
		for _, e := range r.Events {
			if known && e.Node == p.Node && e.What == line && e.Attrs["epoch"] == float64(t.Epoch) && !e.Time.Before(r.Zero) {
				return max(0, msOf(e.Time.Add(-ago).Sub(r.Zero)))
			}
		}
		return report.Missing
	}
	for _, p := range t.Trace.Pieces {
		if at := before(p, "proposed", "granted", "grant committed"); at != report.Missing {
			proposed = at
		}
		if p.Node == r.After {
			granted, open = before(p, "granted", "announced", "announced"), before(p, "fence_open", "announced", "announced")
		}
	}
	return proposed, granted, open
}

func msOf(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
