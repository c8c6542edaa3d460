package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-ha/remora/bench/lab"
	"github.com/remora-ha/remora/bench/peers"
)

// loadTick is how often "load" says what it has seen so far.
const loadTick = time.Minute

type loadOptions struct {
	common
	calm, load time.Duration
	percent    int
	systems    []string
	out, logs  string
}

func loadCommand() *cobra.Command {
	var o loadOptions
	cmd := &cobra.Command{
		Use:   "load",
		Short: "Keep all processors busy and count how often the address moves although nothing has failed",
		Long: `Starts all systems at once, each in a laboratory of its own, and lets them be, first on a calm machine and then with a
process on each processor that is busy for most of each 100 ms: all see the same noise. No server and no node fails, so every move
of the address is a false one, and so is every alarm about a server. Says each minute what was seen so far. Prints a Markdown table with
the reasons below it, which it also writes to load.md, each minute and at the end, also when it is interrupted. Exits with status 1 if
Remora in profile lan has given its address up, or Remora has taken a server for failed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts, err := o.options()
			if err != nil {
				return err
			}
			return o.run(cmd.Context(), opts, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	o.flags(cmd)
	cmd.Flags().DurationVar(&o.calm, "calm", time.Minute, "how long the systems are watched on a calm machine")
	cmd.Flags().DurationVar(&o.load, "for", 10*time.Minute, "how long they are watched under load")
	cmd.Flags().IntVar(&o.percent, "percent", 95, "how busy each processor is kept")
	cmd.Flags().StringSliceVar(&o.systems, "system", []string{"remora-lan", "remora-fast", "keepalived-10ms", "keepalived-100ms"}, "systems to watch, by name")
	cmd.Flags().StringVar(&o.out, "out", "bench/results", "directory for the table")
	cmd.Flags().StringVar(&o.logs, "logs", "", "directory in which the logs of all systems are kept, by system and node; empty keeps none")
	return cmd
}

// arena is a system in a laboratory of its own.
type arena struct {
	*lab.Lab
	system contender
}

func (o loadOptions) run(ctx context.Context, opts lab.Options, out, progress io.Writer) (err error) {
	if o.percent < 1 || o.percent > 99 {
		return fmt.Errorf("--percent %d: a processor can be kept busy for 1 to 99 percent of the time", o.percent)
	}
	if err := known("system", o.systems, func(n string) bool { return named(lineUp(nil), n) >= 0 }); err != nil {
		return err
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return fmt.Errorf("make the directory of the table: %w", err)
	}
	var arenas []arena
	defer func() {
		for _, a := range arenas {
			err = errors.Join(err, a.system.Stop(context.WithoutCancel(ctx)), o.keepLogs(a), a.Close())
		}
	}()
	for _, name := range o.systems {
		a, err := raise(ctx, opts, name)
		if ctx.Err() != nil {
			return errors.Join(errors.New("interrupted"), err)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		arenas = append(arenas, a)
		fmt.Fprintf(progress, "%s serves in laboratory %s\n", name, a.Name())
	}
	for _, a := range arenas { // the start of a later one has taken the processors from it
		settling, cancel := context.WithTimeout(ctx, startLimit)
		err := a.system.Settle(settling)
		if cancel(); err != nil {
			return fmt.Errorf("%s: %w", a.system.Name(), err)
		}
	}
	r := &loadRun{arenas: arenas, path: filepath.Join(o.out, "load.md"), head: machine(opts.Remora, cmp.Or(opts.Root, lab.DefaultRoot())), progress: progress}
	err = r.watch(ctx, "calm", o.calm)
	if err == nil {
		err = o.burden(ctx, r)
	}
	text := r.text()
	_, errPrint := io.WriteString(out, text)
	return errors.Join(err, errPrint, judgeLoad(r.done))
}

// named returns the index of the system of a name, -1 if there is none.
func named(systems []contender, name string) int {
	return slices.IndexFunc(systems, func(s contender) bool { return s.Name() == name })
}

// raise starts a system in a new laboratory.
func raise(ctx context.Context, opts lab.Options, name string) (arena, error) {
	l, err := lab.New(ctx, opts)
	if err != nil {
		return arena{}, err
	}
	systems := lineUp(l)
	a := arena{Lab: l, system: systems[named(systems, name)]}
	err = l.StartServers(ctx)
	if err == nil {
		_, err = l.StartStream(lab.StreamOptions{Interval: 10 * time.Millisecond})
	}
	if err == nil {
		starting, cancel := context.WithTimeout(ctx, startLimit)
		if err = a.system.Start(starting); err != nil {
			err = errors.Join(err, a.system.Stop(context.WithoutCancel(ctx)))
		}
		cancel()
	}
	if err != nil {
		if ctx.Err() == nil {
			showLogs(l)
		}
		return arena{}, errors.Join(err, l.Close())
	}
	return a, nil
}

// loadRun is a measurement on its way.
type loadRun struct {
	arenas   []arena
	path     string // of the table
	head     string
	progress io.Writer
	done     []watched
}

// watch lets all systems be for a time and keeps what was seen. If it is interrupted, it keeps what was seen until then.
func (r *loadRun) watch(ctx context.Context, name string, planned time.Duration) error {
	before, err := readCPU()
	if err != nil {
		return err
	}
	from := time.Now()
	tick := time.NewTicker(loadTick)
	defer tick.Stop()
	over := time.After(planned)
	earlier := r.done
	for {
		var interrupted error
		last := false
		select {
		case <-tick.C:
		case <-over:
			last = true
		case <-ctx.Done():
			last, interrupted = true, errors.New("interrupted: the table has what was seen until then")
		}
		s := span{name: name, planned: planned, from: from, to: time.Now()}
		err := r.take(s, before, earlier)
		if last {
			return errors.Join(interrupted, err)
		}
		if err != nil { // the end says it again, if it lasts
			fmt.Fprintln(r.progress, err)
		}
	}
}

// take adds what was seen in a span so far to what was seen in earlier ones, says it and keeps the table.
func (r *loadRun) take(s span, before cpuTime, earlier []watched) error {
	after, err := readCPU()
	s.busy = after.percentSince(before)
	r.done = slices.Clip(earlier)
	for _, a := range r.arenas {
		w := a.look(s)
		r.done, err = append(r.done, w), errors.Join(err, w.err)
	}
	fmt.Fprintln(r.progress, soFar(r.done[len(earlier):]))
	if errKeep := os.WriteFile(r.path, []byte(r.text()), 0o644); errKeep != nil {
		err = errors.Join(err, fmt.Errorf("keep the table: %w", errKeep))
	}
	return err
}

func (r *loadRun) text() string { return loadTable(r.head, r.done) }

// keepLogs copies the logs of a system, which the laboratory would take with it.
func (o loadOptions) keepLogs(a arena) error {
	if o.logs == "" {
		return nil
	}
	for _, n := range a.Nodes() {
		to := filepath.Join(o.logs, a.system.Name(), n.Name)
		files, err := filepath.Glob(filepath.Join(n.Dir(), "*.log"))
		if err == nil {
			err = os.MkdirAll(to, 0o755)
		}
		for _, f := range files {
			text, errRead := os.ReadFile(f)
			err = errors.Join(err, errRead, os.WriteFile(filepath.Join(to, filepath.Base(f)), text, 0o644))
		}
		if err != nil {
			return fmt.Errorf("keep the logs of %s: %w", a.system.Name(), err)
		}
	}
	return nil
}

// look returns what was seen of the system in a span.
func (a arena) look(s span) watched {
	events, err := a.AddrEvents()
	vip := a.VIP()
	w := watched{span: s, system: a.system.Name(), moves: lab.Changes(events, vip, s.from, s.to), double: lab.Shared(events, vip, s.from, s.to),
		unowned: lab.Unowned(events, vip, s.from, s.to), gap: a.Stream().Stats(s.from, s.to).Gap}
	teller, tells := a.system.System.(peers.Teller)
	for _, h := range lab.Losses(events, vip, s.from, s.to) {
		l := peers.Incident{Time: h.To, Node: h.Node, Reason: "the system's logs do not say why"}
		if tells {
			why, errWhy := teller.Why(h.Node, h.To)
			if err = errors.Join(err, errWhy); why != "" {
				l.Reason = why
			}
		}
		w.losses = append(w.losses, l)
	}
	if tells {
		alarms, errAlarms := teller.Alarms(s.from, s.to)
		w.alarms, w.tells, err = alarms, true, errors.Join(err, errAlarms)
	}
	if err != nil {
		w.err = fmt.Errorf("%s: what was seen may lack something: %w", w.system, err)
	}
	return w
}

// burden watches while all processors are kept busy.
func (o loadOptions) burden(ctx context.Context, r *loadRun) (err error) {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	var burners []*lab.Process
	defer func() {
		for _, p := range burners {
			err = errors.Join(err, p.Kill())
		}
	}()
	for cpu := range runtime.NumCPU() {
		p, err := r.arenas[0].Nodes()[0].StartOutside("load", exec.Command(self, "burn", "--cpu", strconv.Itoa(cpu), "--percent", strconv.Itoa(o.percent)))
		if err != nil {
			return err
		}
		burners = append(burners, p)
	}
	if err := r.watch(ctx, "load", o.load); err != nil {
		return err
	}
	for _, p := range burners {
		if !p.Running() {
			return fmt.Errorf("the load has ended early, with status %d", p.ExitCode())
		}
	}
	return nil
}

// judgeLoad returns an error if Remora did what the load must not make it do.
func judgeLoad(seen []watched) error {
	var errs []error
	for _, w := range seen {
		if n := len(w.losses); w.system == "remora-lan" && n > 0 {
			errs = append(errs, fmt.Errorf("%s, %s: has given its address up %d times although nothing had failed", w.system, w.span.name, n))
		}
		if n := len(w.alarms); strings.HasPrefix(w.system, "remora-") && n > 0 {
			errs = append(errs, fmt.Errorf("%s, %s: has taken a server for failed %d times although none was", w.system, w.span.name, n))
		}
	}
	return errors.Join(errs...)
}
