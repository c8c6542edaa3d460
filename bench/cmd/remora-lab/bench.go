package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-ha/remora/bench/lab"
	"github.com/remora-ha/remora/bench/peers"
	"github.com/remora-ha/remora/bench/report"
)

type benchOptions struct {
	common
	runs            int
	systems, only   []string
	out             string
	interval, limit time.Duration
}

func benchCommand() *cobra.Command {
	var o benchOptions
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure Remora beside keepalived in one laboratory, interleaved",
		Long: `Runs each system in turn in the same laboratory, each scenario once per turn, and repeats that, so that a noisy
machine hits all alike. Each run is added to runs.csv in the output directory; further calls add to what is there. The
command "report" makes the table and the plots of it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts, err := o.options()
			if err != nil {
				return err
			}
			return withLab(cmd.Context(), opts, func(l *lab.Lab) error { return bench(cmd.Context(), l, o, cmd.ErrOrStderr()) })
		},
	}
	o.flags(cmd)
	cmd.Flags().IntVar(&o.runs, "runs", 15, "how often each scenario is repeated")
	cmd.Flags().StringSliceVar(&o.systems, "system", nil, "systems to run, by name; all if empty")
	cmd.Flags().StringSliceVar(&o.only, "only", nil, "scenarios to run, by name; all if empty")
	cmd.Flags().StringVar(&o.out, "out", "bench/results", "directory for the figures")
	cmd.Flags().DurationVar(&o.interval, "interval", 2*time.Millisecond, "time between two connections of the client")
	cmd.Flags().DurationVar(&o.limit, "timeout", time.Hour, "give up after this time")
	return cmd
}

// trial is a scenario that every system can be put through.
type trial struct {
	name string
	// probe has every node asked by its hardware address meanwhile. It costs time on the cores, so only some do it.
	probe bool
	// arrange, if set, brings Remora's leadership to where the scenario wants it.
	arrange func(context.Context, *lab.Lab) error
	// remora marks a scenario that other systems do not know.
	remora bool
	act    func(context.Context, *lab.Lab, peers.System, string) error
	undo   func(*lab.Lab, peers.System, string) error
}

func trials() []trial {
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
	return []trial{
		{name: "mysqld-killed", act: signal(syscall.SIGKILL)},
		{name: "planned", act: func(ctx context.Context, l *lab.Lab, s peers.System, owner string) error {
			return s.Move(ctx, owner, other(l, owner))
		}},
		{name: "mysqld-hung", act: signal(syscall.SIGSTOP), undo: func(l *lab.Lab, _ peers.System, owner string) error {
			return l.Node(owner).SignalServer(syscall.SIGCONT)
		}},
		{name: "node-vanished", arrange: apart(false), act: drop},
		{name: "node-vanished-leader", remora: true, arrange: apart(true), act: drop},
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
}

func bench(ctx context.Context, l *lab.Lab, o benchOptions, progress io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return fmt.Errorf("make the directory of the figures: %w", err)
	}
	if err := l.StartServers(ctx); err != nil {
		return err
	}
	if _, err := l.StartStream(lab.StreamOptions{Interval: o.interval}); err != nil {
		return err
	}
	systems := []peers.System{peers.Remora{Lab: l, Profile: "lan"}, peers.Remora{Lab: l, Profile: "fast"},
		peers.Fastest(l), peers.Checked(l), peers.Brisk(l), peers.Common(l)}
	for turn := range o.runs {
		for _, s := range systems {
			if len(o.systems) > 0 && !slices.Contains(o.systems, s.Name()) {
				continue
			}
			err := takeTurn(ctx, l, o, s, turn, progress)
			if ctx.Err() != nil {
				return fmt.Errorf("turn %d of %s: %w", turn+1, s.Name(), errors.Join(err, ctx.Err()))
			}
			if err != nil { // the rest of the turn is lost, which the number of runs shows
				fmt.Fprintf(progress, "%d %s: the turn ended early: %v\n", turn+1, s.Name(), err)
			}
		}
	}
	return nil
}

// trialLimit bounds a scenario with the way back to health.
const trialLimit = 40 * time.Second

// takeTurn puts one system through all scenarios.
func takeTurn(ctx context.Context, l *lab.Lab, o benchOptions, s peers.System, turn int, progress io.Writer) error {
	if err := mend(ctx, l); err != nil {
		return err
	}
	if err := s.Start(ctx); err != nil {
		return errors.Join(err, s.Stop(ctx))
	}
	for _, t := range trials() {
		_, isRemora := s.(peers.Remora)
		if len(o.only) > 0 && !slices.Contains(o.only, t.name) || t.remora && !isRemora {
			continue
		}
		if t.arrange != nil && isRemora {
			err := t.arrange(ctx, l)
			if errors.Is(err, errNotNow) {
				fmt.Fprintf(progress, "%d %s %s: %v\n", turn+1, s.Name(), t.name, err)
				continue
			}
			if err != nil {
				return errors.Join(err, s.Stop(ctx))
			}
		}
		limited, cancel := context.WithTimeout(ctx, trialLimit)
		r, err := runTrial(limited, l, s, t)
		cancel()
		if err != nil {
			return errors.Join(fmt.Errorf("%s: %w", t.name, err), s.Stop(ctx))
		}
		fmt.Fprintf(progress, "%d %s %s: moved %v, gap %.1f ms, longest wait %.1f ms, double %.1f ms, %d frames\n",
			turn+1, s.Name(), t.name, r.Moved, r.Gap, r.Longest, r.Double, r.Frames)
		if err := report.Append(filepath.Join(o.out, "runs.csv"), r); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(o.out, s.Name()+".conf"), []byte(s.Config()), 0o644); err != nil {
		return fmt.Errorf("record the configuration: %w", err)
	}
	return s.Stop(ctx)
}

// runTrial runs one scenario and brings the laboratory back to health.
func runTrial(ctx context.Context, l *lab.Lab, s peers.System, t trial) (report.Run, error) {
	out := report.Run{System: s.Name(), Scenario: t.name}
	owner := l.Holder(l.VIP())
	var p *lab.Prober
	if t.probe {
		var err error
		if p, err = l.StartProber(lab.ProberOptions{}); err != nil {
			return out, err
		}
		defer p.Stop()
		if err := p.WaitAnswers(ctx, owner, time.Now(), 10); err != nil {
			return out, err
		}
	}
	step := lab.Step{Name: t.name,
		Act: func(ctx context.Context) error { return t.act(ctx, l, s, owner) },
		Done: func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, s.Patience())
			defer cancel()
			_, err := l.WaitMoved(ctx, owner)
			out.Moved = err == nil
			if out.Moved {
				err = l.WaitServed(ctx, l.Stream())
			}
			if errors.Is(err, context.DeadlineExceeded) {
				return nil // not moved, or not served in time: that is a result
			}
			return err
		}}
	r, err := l.Run(ctx, step)
	if err == nil && p != nil {
		p.Stop()
		var answers lab.Answers
		answers, err = p.Answers()
		for _, d := range answers.DoubleAnswers() {
			out.Double = max(out.Double, msOf(d.Duration()))
		}
	} else {
		out.Double = report.Missing
	}
	if err == nil {
		out.Frames, err = l.Announcements(r)
	}
	if err == nil && t.undo != nil {
		err = t.undo(l, s, owner)
	}
	if err == nil {
		err = errors.Join(mend(ctx, l), s.Settle(ctx))
	}
	out.Gap, out.Longest = msOf(r.Client.Gap), msOf(r.Client.Longest)
	out.Failed, out.Connections = r.Client.Failed, r.Client.Attempts
	out.Phases = phases(r)
	return out, err
}

// mend heals the network and starts the servers that were killed.
func mend(ctx context.Context, l *lab.Lab) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := l.HealAll(); err != nil {
		return err
	}
	for _, n := range l.Servers() {
		if !n.Server().Running() {
			if err := n.StartServer(ctx); err != nil {
				return err
			}
		}
	}
	return l.WaitReplicating(ctx)
}

// phases reads the trace of a takeover off the time line: daemons' logs, the kernel's events, frames and the client.
func phases(r lab.Report) (at [6]float64) {
	find := func(node string, whats ...string) float64 {
		for _, e := range r.Events {
			if !e.Time.Before(r.Zero) && (node == "" || e.Node == node) && slices.Contains(whats, e.What) {
				return msOf(e.Time.Sub(r.Zero))
			}
		}
		return report.Missing
	}
	at = [6]float64{find(r.Before, "giving up"), find(r.Before, lab.WhatAddrRemoved), find(r.After, "grant committed"),
		find(r.After, lab.WhatAddrAdded), find(r.After, lab.WhatAnnounced), find("", lab.WhatFirstAnswer)}
	return at
}

func msOf(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
