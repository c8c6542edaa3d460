package main

import (
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

type loadOptions struct {
	common
	calm, load time.Duration
	percent    int
	systems    []string
	out        string
}

// watched is what was seen of a system to which nothing happened.
type watched struct {
	span  time.Duration
	busy  float64 // percent of all processors
	moves int     // times that another node got the address
	// losses counts the times that a node lost the address, for another or to get it again.
	losses int
	// double is for how long two nodes had the address bound, unowned the longest time for which none had.
	double, unowned time.Duration
	gap             time.Duration // of the client
}

func loadCommand() *cobra.Command {
	var o loadOptions
	cmd := &cobra.Command{
		Use:   "load",
		Short: "Keep all processors busy and count how often the address moves although nothing has failed",
		Long: `Starts each system in turn in one laboratory and lets it be, first on a calm machine and then with a process on each
processor that is busy for most of each 100 ms. No server and no node fails: every move of the address is a false one.
Prints a Markdown table, which it also writes to load.md. Exits with status 1 if Remora in profile lan has given its address up.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts, err := o.options()
			if err != nil {
				return err
			}
			return withLab(cmd.Context(), opts, func(l *lab.Lab) error { return o.run(cmd.Context(), l, cmd.OutOrStdout(), cmd.ErrOrStderr()) })
		},
	}
	o.flags(cmd)
	cmd.Flags().DurationVar(&o.calm, "calm", time.Minute, "how long each system is watched on a calm machine")
	cmd.Flags().DurationVar(&o.load, "for", 10*time.Minute, "how long it is watched under load")
	cmd.Flags().IntVar(&o.percent, "percent", 95, "how busy each processor is kept")
	cmd.Flags().StringSliceVar(&o.systems, "system", []string{"remora-lan", "remora-fast", "keepalived-10ms", "keepalived-100ms"}, "systems to watch, by name")
	cmd.Flags().StringVar(&o.out, "out", "bench/results", "directory for the table")
	return cmd
}

func (o loadOptions) run(ctx context.Context, l *lab.Lab, out, progress io.Writer) error {
	if o.percent < 1 || o.percent > 99 {
		return fmt.Errorf("--percent %d: a processor can be kept busy for 1 to 99 percent of the time", o.percent)
	}
	all := lineUp(l)
	if err := known("system", o.systems, func(n string) bool {
		return slices.ContainsFunc(all, func(s contender) bool { return s.Name() == n })
	}); err != nil {
		return err
	}
	if err := l.StartServers(ctx); err != nil {
		return err
	}
	if _, err := l.StartStream(lab.StreamOptions{Interval: 10 * time.Millisecond}); err != nil {
		return err
	}
	rows := []string{"| | span | processors busy | false moves | times given up | two nodes had it | none had it, longest | client's gap |", "|---|---|---|---|---|---|---|---|"}
	var lanLost error
	for _, s := range all {
		if !slices.Contains(o.systems, s.Name()) {
			continue
		}
		calm, loaded, err := o.watch(ctx, l, s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.Name(), err)
		}
		fmt.Fprintf(progress, "%s: given up %d times in %v of calm, %d times in %v of load\n", s.Name(), calm.losses, o.calm, loaded.losses, o.load)
		rows = append(rows, calm.row(s.Name()+", calm"), loaded.row(s.Name()+", load"))
		if n := calm.losses + loaded.losses; s.Name() == "remora-lan" && n > 0 {
			lanLost = fmt.Errorf("%s has given its address up %d times although nothing had failed", s.Name(), n)
		}
	}
	text := fmt.Sprintf("%s\n\n%s\n", machine(), strings.Join(rows, "\n"))
	if err := errors.Join(os.MkdirAll(o.out, 0o755), os.WriteFile(filepath.Join(o.out, "load.md"), []byte(text), 0o644)); err != nil {
		return fmt.Errorf("keep the table: %w", err)
	}
	_, err := io.WriteString(out, text)
	return errors.Join(lanLost, err)
}

// watch starts a system, lets it be in calm and under load, and stops it.
func (o loadOptions) watch(ctx context.Context, l *lab.Lab, s peers.System) (calm, loaded watched, err error) {
	starting, cancel := context.WithTimeout(ctx, startLimit)
	err = s.Start(starting)
	if cancel(); err == nil {
		calm, err = let(ctx, l, o.calm)
	}
	if err == nil {
		loaded, err = o.burden(ctx, l)
	}
	return calm, loaded, errors.Join(err, s.Stop(context.WithoutCancel(ctx)))
}

// burden lets the system be while all processors are kept busy.
func (o loadOptions) burden(ctx context.Context, l *lab.Lab) (w watched, err error) {
	self, err := os.Executable()
	if err != nil {
		return w, fmt.Errorf("find this program: %w", err)
	}
	var burners []*lab.Process
	defer func() {
		for _, p := range burners {
			err = errors.Join(err, p.Kill())
		}
	}()
	for cpu := range runtime.NumCPU() {
		p, err := l.Nodes()[0].StartOutside("load", exec.Command(self, "burn", "--cpu", strconv.Itoa(cpu), "--percent", strconv.Itoa(o.percent)))
		if err != nil {
			return w, err
		}
		burners = append(burners, p)
	}
	if w, err = let(ctx, l, o.load); err != nil {
		return w, err
	}
	for _, p := range burners {
		if !p.Running() {
			return w, fmt.Errorf("the load has ended early, with status %d", p.ExitCode())
		}
	}
	return w, nil
}

// let watches the laboratory for a span.
func let(ctx context.Context, l *lab.Lab, span time.Duration) (watched, error) {
	before, err := readCPU()
	if err != nil {
		return watched{}, err
	}
	from := time.Now()
	select {
	case <-time.After(span):
	case <-ctx.Done():
		return watched{}, ctx.Err()
	}
	to := time.Now()
	after, errCPU := readCPU()
	events, errEvents := l.AddrEvents()
	w := watched{span: span, busy: after.percentSince(before), moves: lab.Changes(events, l.VIP(), from, to),
		losses: lab.Losses(events, l.VIP(), from, to), unowned: lab.Unowned(events, l.VIP(), from, to),
		gap: l.Stream().Stats(from, to).Gap}
	for _, o := range lab.Overlaps(events, l.VIP()) {
		end := o.To
		if end.IsZero() || end.After(to) {
			end = to
		}
		begin := o.From
		if begin.Before(from) {
			begin = from
		}
		w.double += max(0, end.Sub(begin))
	}
	return w, errors.Join(errCPU, errEvents)
}

func (w watched) row(name string) string {
	return fmt.Sprintf("| %s | %v | %.0f %% | %d | %d | %.1f ms | %.1f ms | %.1f ms |", name, w.span, w.busy, w.moves, w.losses, msOf(w.double), msOf(w.unowned), msOf(w.gap))
}
