package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-ha/remora/bench/lab"
	"github.com/remora-ha/remora/bench/peers"
	"github.com/remora-ha/remora/bench/report"
)

type benchOptions struct {
	common
	runs            int
	all             bool
	systems, only   []string
	out             string
	ballast         int
	interval, limit time.Duration
}

func benchCommand() *cobra.Command {
	var o benchOptions
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure Remora beside other systems in one laboratory, interleaved",
		Long: `Runs each system in turn in the same laboratory, each scenario once per turn, and repeats that, so that a noisy
machine hits all alike. Each run is added to runs.csv in the output directory, and runs that are there already count: a
measurement that was interrupted, or that was divided by --system and --only, goes on where it stopped. The command
"report" makes the table and the plots of it. Without --all, --system and --only it is the quick set.`,
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
	cmd.Flags().IntVar(&o.runs, "runs", 15, "how many runs of each scenario there are to be in the end")
	cmd.Flags().BoolVar(&o.all, "all", false, "all systems and scenarios, not only those of the quick set")
	cmd.Flags().StringSliceVar(&o.systems, "system", nil, "systems to run, by name")
	cmd.Flags().StringSliceVar(&o.only, "only", nil, "scenarios to run, by name")
	cmd.Flags().StringVar(&o.out, "out", "bench/results", "directory for the figures")
	cmd.Flags().IntVar(&o.ballast, "ballast", 4096, "memory in MiB that the server has touched in mysqld-killed-large")
	cmd.Flags().DurationVar(&o.interval, "interval", 2*time.Millisecond, "time between two connections of the client")
	cmd.Flags().DurationVar(&o.limit, "timeout", 3*time.Hour, "give up after this time")
	return cmd
}

// job is one scenario of one turn of a system.
type job struct {
	turn   int
	system contender
	trial  trial
}

// plan lists what is to be done, in the order in which it is: turn by turn, and in a turn system by system. What was
// done by an earlier call is left out.
func (o benchOptions) plan(l *lab.Lab, done []report.Run) ([]job, error) {
	systems, trials := lineUp(l), trials(o.ballast)
	if err := errors.Join(
		known("system", o.systems, func(n string) bool {
			return slices.ContainsFunc(systems, func(s contender) bool { return s.Name() == n })
		}),
		known("scenario", o.only, func(n string) bool {
			return slices.ContainsFunc(trials, func(t trial) bool { return t.name == n })
		})); err != nil {
		return nil, err
	}
	has := map[[2]string]int{}
	for _, r := range done {
		has[[2]string{r.System, r.Scenario}]++
	}
	chosen := func(names []string, name string, quick bool) bool {
		if len(names) > 0 {
			return slices.Contains(names, name)
		}
		return quick || o.all
	}
	var jobs []job
	for turn := range o.runs {
		for _, s := range systems {
			for _, t := range trials {
				if has[[2]string{s.Name(), t.name}] > turn || !s.takes(t) || !chosen(o.systems, s.Name(), s.quick) ||
					!chosen(o.only, t.name, t.quick) {
					continue
				}
				jobs = append(jobs, job{turn, s, t})
			}
		}
	}
	return jobs, nil
}

func known(what string, names []string, is func(string) bool) error {
	for _, n := range names {
		if !is(n) {
			return fmt.Errorf("there is no %s %q: see docs/benchmarks.md for their names", what, n)
		}
	}
	return nil
}

func bench(ctx context.Context, l *lab.Lab, o benchOptions, progress io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return fmt.Errorf("make the directory of the figures: %w", err)
	}
	done, err := report.Read(filepath.Join(o.out, runsFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = forget(o.out)
	}
	if err != nil {
		return err
	}
	jobs, err := o.plan(l, done)
	if err != nil {
		return err
	}
	fmt.Fprintf(progress, "%d runs are to be done, %d are done\n", len(jobs), len(done))
	if err := recordMachine(o.out, l); err != nil {
		return err
	}
	if err := l.StartServers(ctx); err != nil {
		return err
	}
	if _, err := l.StartStream(lab.StreamOptions{Interval: o.interval}); err != nil {
		return err
	}
	b := &session{lab: l, out: o.out, progress: progress, total: len(jobs), begun: time.Now()}
	for len(jobs) > 0 {
		n := slices.IndexFunc(jobs, func(j job) bool {
			return j.turn != jobs[0].turn || j.system != jobs[0].system || j.trial.addresses != jobs[0].trial.addresses
		})
		if n < 0 {
			n = len(jobs)
		}
		err := b.takeTurn(ctx, jobs[:n])
		if ctx.Err() != nil {
			return fmt.Errorf("turn %d of %s: %w: call again to go on", jobs[0].turn+1, jobs[0].system.Name(), errors.Join(err, ctx.Err()))
		}
		if err != nil { // the rest of the turn is lost, and kept as such
			fmt.Fprintf(progress, "%d %s: the turn ended early: %v\n", jobs[0].turn+1, jobs[0].system.Name(), err)
		}
		jobs = jobs[n:]
		b.done = b.total - len(jobs)
	}
	fmt.Fprintf(progress, "done after %v\n", time.Since(b.begun).Round(time.Second))
	return nil
}

// The files in the directory of the figures.
const (
	runsFile    = "runs.csv"
	lostFile    = "lost.csv"
	machineFile = "machine.txt"
)

// forget removes what belongs to runs that are not there any more.
func forget(dir string) error {
	for _, name := range []string{lostFile, machineFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("begin a new measurement: %w", err)
		}
	}
	return nil
}

// session is a measurement on its way.
type session struct {
	lab         *lab.Lab
	out         string
	progress    io.Writer
	done, total int
	begun       time.Time
}

const (
	// startLimit bounds the start of a system, trialLimit a scenario with the way back to health, readyLimit what makes the
	// owner ready before: 4 GiB are not filled in a moment.
	startLimit = 40 * time.Second
	trialLimit = 40 * time.Second
	readyLimit = 2 * time.Minute
)

// takeTurn puts one system through some scenarios with the same addresses. Of the runs that do not come about it keeps that.
func (b *session) takeTurn(ctx context.Context, jobs []job) error {
	l, s := b.lab, jobs[0].system
	if err := errors.Join(mend(ctx, l, true), b.sweep()); err != nil {
		return errors.Join(err, b.lose(ctx, jobs, report.NotMeasured, err))
	}
	l.SetCrowd(max(0, jobs[0].trial.addresses-1))
	starting, cancel := context.WithTimeout(ctx, startLimit)
	err := s.Start(starting)
	if cancel(); err != nil {
		err = fmt.Errorf("start: %w", err)
		return errors.Join(err, b.lose(ctx, jobs, report.NotStarted, err), s.Stop(ctx))
	}
	for i, j := range jobs {
		kept, err := b.try(ctx, j)
		rest := jobs[i:]
		if kept {
			rest = jobs[i+1:]
		}
		if errors.Is(err, errNotNow) {
			fmt.Fprintf(b.progress, "%d %s %s: %v\n", j.turn+1, s.Name(), j.trial.name, err)
			err, rest = b.lose(ctx, rest[:1], report.NotMeasured, err), rest[1:]
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", j.trial.name, err)
			return errors.Join(err, b.lose(ctx, rest, report.NotMeasured, err), s.Stop(ctx))
		}
		b.done++
	}
	if l.SetCrowd(0); jobs[0].trial.addresses == 0 {
		if err := os.WriteFile(filepath.Join(b.out, s.Name()+".conf"), []byte(s.Config()), 0o644); err != nil {
			return fmt.Errorf("record the configuration: %w", errors.Join(err, s.Stop(ctx)))
		}
	}
	return s.Stop(ctx)
}

// lose keeps that runs did not come about. Those of a measurement that was interrupted are not lost: the next one does them.
func (b *session) lose(ctx context.Context, jobs []job, cause report.Cause, why error) error {
	if ctx.Err() != nil {
		return nil
	}
	text, _, _ := strings.Cut(why.Error(), "\n")
	var errs []error
	for _, j := range jobs {
		errs = append(errs, report.AppendLost(filepath.Join(b.out, lostFile), report.Lost{At: time.Now().Truncate(time.Second),
			System: j.system.Name(), Scenario: j.trial.name, Cause: cause, Text: text}))
	}
	return errors.Join(errs...)
}

// sweep removes the addresses that the system before has left bound, which is for an operator to do: the next one would be
// right to refuse them.
func (b *session) sweep() error {
	var errs []error
	for _, n := range b.lab.Servers() {
		left, err := n.ForeignAddrs()
		if errs = append(errs, err); len(left) == 0 {
			continue
		}
		fmt.Fprintf(b.progress, "the system before has left %d addresses on %s\n", len(left), n.Name)
		errs = append(errs, n.Forget())
	}
	return errors.Join(errs...)
}

// try runs one scenario and keeps what was seen, also when the way back to health fails afterwards.
func (b *session) try(ctx context.Context, j job) (kept bool, err error) {
	if _, isRemora := j.system.System.(peers.Remora); j.trial.arrange != nil && isRemora {
		if err := j.trial.arrange(ctx, b.lab); err != nil {
			return false, err
		}
	}
	if j.trial.ready != nil {
		filling, cancel := context.WithTimeout(ctx, readyLimit)
		err := j.trial.ready(filling, b.lab, b.lab.Holder(b.lab.VIP()))
		if cancel(); err != nil {
			return false, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, j.system.limit())
	defer cancel()
	owner := b.lab.Holder(b.lab.VIP())
	r, err := runTrial(ctx, b.lab, j.system, j.trial, owner)
	if err == nil {
		r.At = time.Now().Truncate(time.Second)
		fmt.Fprintf(b.progress, "%d %s %s: %s%s\n", j.turn+1, r.System, r.Scenario, describe(r), b.left())
		err = report.Append(filepath.Join(b.out, runsFile), r)
		kept = err == nil
	}
	if back := goBack(ctx, b.lab, j.system, j.trial, owner); back != nil {
		err = errors.Join(err, fmt.Errorf("the way back to health: %w", back))
	}
	return kept, err
}

// describe says in a line what a run has shown.
func describe(r report.Run) string {
	parts := []string{fmt.Sprintf("moved %v, gap %.1f ms, longest wait %.1f ms, %d frames", r.Moved, r.Gap, r.Longest, r.Frames)}
	add := func(format string, v float64) {
		if v != report.Missing {
			parts = append(parts, fmt.Sprintf(format, v))
		}
	}
	add("double %.1f ms", r.Double)
	add("last address after %.1f ms", r.Last)
	add("kept connection %.1f ms", r.Reconnect)
	add("pool %.1f ms", r.Pool)
	return strings.Join(parts, ", ")
}

// left says how far the measurement has come and how long the rest will take, if it goes on as it went.
func (b *session) left() string {
	n := b.done + 1
	rest := time.Since(b.begun) / time.Duration(n) * time.Duration(b.total-n)
	return fmt.Sprintf(" (%d of %d, %v to go)", n, b.total, rest.Round(time.Second))
}
