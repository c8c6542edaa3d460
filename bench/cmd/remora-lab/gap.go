package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-ha/remora/bench/lab"
)

type gapOptions struct {
	common
	runs     int
	check    bool
	json     bool
	only     []string
	interval time.Duration
	limit    time.Duration
	show     bool
}

func gapCommand() *cobra.Command {
	var o gapOptions
	cmd := &cobra.Command{
		Use:   "gap",
		Short: "Measure how long a client gets no answer at the virtual address",
		Long: `Repeats each scenario in one laboratory and prints the median, least and greatest time in which a client that
opens a new connection every millisecond or two got no answer, and the longest wait of any single connection. With
--check it exits with status 1 when a limit is exceeded. It always does when two nodes held the address at once.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts, err := o.options()
			if err != nil {
				return err
			}
			return withLab(cmd.Context(), opts, func(l *lab.Lab) error {
				return measure(cmd.Context(), l, o, cmd.OutOrStdout(), cmd.ErrOrStderr())
			})
		},
	}
	o.flags(cmd)
	cmd.Flags().IntVar(&o.runs, "runs", 10, "how often each scenario is repeated")
	cmd.Flags().BoolVar(&o.check, "check", false, "exit with status 1 when a limit is exceeded")
	cmd.Flags().BoolVar(&o.json, "json", false, "print the figures of every run as JSON")
	cmd.Flags().StringSliceVar(&o.only, "only", nil, "scenarios to run, by name; the undisturbed one always runs")
	cmd.Flags().DurationVar(&o.interval, "interval", 2*time.Millisecond, "time between two connections of the client")
	cmd.Flags().DurationVar(&o.limit, "timeout", 30*time.Minute, "give up after this time")
	cmd.Flags().BoolVar(&o.show, "show", false, "print the time line of every run")
	return cmd
}

// sample holds the figures of one run.
type sample struct {
	Gap     time.Duration `json:"gap_ns"`
	Longest time.Duration `json:"longest_ns"`
	Unowned time.Duration `json:"unowned_ns"`
	Failed  int           `json:"failed"`
	Total   int           `json:"connections"`
}

// result holds the figures of one scenario.
type result struct {
	Name     string        `json:"scenario"`
	Title    string        `json:"title"`
	Limit    time.Duration `json:"limit_ns,omitempty"`
	NoImpact bool          `json:"no_impact,omitempty"`
	Samples  []sample      `json:"runs"`
	Optional bool          `json:"optional,omitempty"`
	// Missed counts the runs whose preconditions did not come about.
	Missed int `json:"missed,omitempty"`
}

func measure(ctx context.Context, l *lab.Lab, o gapOptions, out, progress io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	if err := l.Up(ctx, lab.StreamOptions{Interval: o.interval}); err != nil {
		return err
	}
	var results []result
	for _, s := range scenarios() {
		if len(o.only) > 0 && s.name != undisturbed && !slices.Contains(o.only, s.name) {
			continue
		}
		r, err := repeat(ctx, l, s, o, progress)
		if err != nil {
			return fmt.Errorf("scenario %s: %w", s.name, err)
		}
		results = append(results, r)
	}
	if err := printResults(out, results, o); err != nil {
		return err
	}
	late, err := l.Stream().Late()
	fmt.Fprintf(progress, "The client missed %d of its own ticks.\n", late)
	return errors.Join(err, judgeHolders(l), judge(results, o.check))
}

func printResults(out io.Writer, results []result, o gapOptions) error {
	if !o.json {
		return writeTable(out, results, o)
	}
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	if err := enc.Encode(results); err != nil {
		return fmt.Errorf("print the figures: %w", err)
	}
	return nil
}

// repeat runs one scenario as often as asked and brings the cluster back to health before each run.
func repeat(ctx context.Context, l *lab.Lab, s scenario, o gapOptions, progress io.Writer) (result, error) {
	res := result{Name: s.name, Title: s.title, Limit: s.limit, NoImpact: s.noImpact, Optional: s.optional}
	for i := range o.runs {
		if err := heal(ctx, l); err != nil {
			return res, err
		}
		step, err := s.prepare(ctx, l)
		if errors.Is(err, errNotNow) {
			res.Missed++
			fmt.Fprintf(progress, "%s %d/%d: %v\n", s.name, i+1, o.runs, err)
			continue
		}
		if err != nil {
			return res, err
		}
		r, err := l.Run(ctx, step)
		if o.show || err != nil {
			err = errors.Join(err, r.Write(progress, lab.Milestones()))
		}
		if err != nil {
			return res, err
		}
		c := r.Client
		res.Samples = append(res.Samples, sample{Gap: c.Gap, Longest: c.Longest, Unowned: r.Unowned, Failed: c.Failed, Total: c.Attempts})
		fmt.Fprintf(progress, "%s %d/%d: %s -> %s, gap %v, longest wait %v, %d of %d failed\n", s.name, i+1, o.runs,
			r.Before, r.After, c.Gap.Round(10*time.Microsecond), c.Longest.Round(10*time.Microsecond), c.Failed, c.Attempts)
	}
	return res, nil
}

// heal undoes whatever the last run did and waits until all is well.
func heal(ctx context.Context, l *lab.Lab) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := l.HealAll(); err != nil {
		return err
	}
	for _, n := range l.Servers() {
		if p := n.Server(); !p.Running() {
			if err := n.StartServer(ctx); err != nil {
				return err
			}
		}
	}
	if err := l.WaitReplicating(ctx); err != nil {
		return err
	}
	return l.WaitStable(ctx)
}

func judgeHolders(l *lab.Lab) error {
	overlaps, err := l.Overlaps(l.VIP())
	if err != nil {
		return fmt.Errorf("judge who held the address: %w", err)
	}
	if len(overlaps) > 0 {
		return fmt.Errorf("two nodes held %v at once: %+v", l.VIP(), overlaps)
	}
	return nil
}
