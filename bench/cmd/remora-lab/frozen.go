package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-ha/remora/bench/lab"
	"github.com/remora-ha/remora/core"
)

type frozenOptions struct {
	common
	runs  int
	only  []string
	limit time.Duration
}

func frozenCommand() *cobra.Command {
	var o frozenOptions
	cmd := &cobra.Command{
		Use:   "frozen",
		Short: "Kill and freeze the owner's daemon, and ask every node whether it still answers",
		Long: `Kills (SIGKILL) or freezes (SIGSTOP) the daemon of the owner again and again, and wakes it up when another node
serves. All the time every node is asked by its own hardware address, every millisecond, whether it answers ARP, ICMP
or TCP for the virtual address. Prints when the old node's last answer came, when another node's first, and for how long
both answered. Exits with status 1 if two nodes ever answered at once, if the old node announced the address afterwards,
or if it answered beyond its lease.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts, err := o.options()
			if err != nil {
				return err
			}
			timing, err := core.ProfileTiming(o.profile)
			if err != nil {
				return err
			}
			return withLab(cmd.Context(), opts, func(l *lab.Lab) error {
				return strikes(cmd.Context(), l, o, timing, cmd.OutOrStdout(), cmd.ErrOrStderr())
			})
		},
	}
	o.flags(cmd)
	cmd.Flags().IntVar(&o.runs, "runs", 50, "how often each scenario is repeated")
	cmd.Flags().StringSliceVar(&o.only, "scenario", []string{string(lab.BlowKill), string(lab.BlowStop)},
		fmt.Sprintf("what happens to the owner: some of %v and %s, which is a stop that ends about when the lease does", lab.Blows(), nap))
	cmd.Flags().DurationVar(&o.limit, "timeout", 30*time.Minute, "give up after this time")
	return cmd
}

// frozenScenario is the name of a blow, or nap.
type frozenScenario string

// nap stops the owner's daemon and lets it go on about when its lease ends, whoever serves then.
const nap frozenScenario = "nap"

func (s frozenScenario) options(timing core.Timing) lab.StrikeOptions {
	if s != nap {
		return lab.StrikeOptions{Blow: lab.Blow(s)}
	}
	return lab.StrikeOptions{Blow: lab.BlowStop, Nap: timing.TTL/2 + rand.N(timing.TTL)}
}

// strikes repeats each scenario and prints the figures, also when it has to end early.
func strikes(ctx context.Context, l *lab.Lab, o frozenOptions, timing core.Timing, out, progress io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	if err := l.StartServers(ctx); err != nil {
		return err
	}
	if err := l.StartDaemons(); err != nil {
		return err
	}
	var errs []error
	for _, name := range o.only {
		all, err := strikeOften(ctx, l, frozenScenario(name), o.runs, timing, progress)
		append99, statusErr := slowestAppend(ctx, l)
		errs = append(errs, err, statusErr, writeStrikes(out, name, all, timing, append99, o.profile))
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

func strikeOften(ctx context.Context, l *lab.Lab, sc frozenScenario, runs int, timing core.Timing, progress io.Writer) ([]lab.Strike, error) {
	var all []lab.Strike
	var errs []error
	for i := range runs {
		if err := l.WaitStable(ctx); err != nil {
			return all, errors.Join(append(errs, err)...)
		}
		s, err := l.Strike(ctx, sc.options(timing))
		if err != nil {
			return all, errors.Join(append(errs, err)...)
		}
		all = append(all, s)
		fmt.Fprintf(progress, "%s %d/%d: %s -> %s (owner led: %v), last answer %s ms after, another's first %s ms after, double %s ms\n",
			sc, i+1, runs, s.Old, s.New, s.Led, ms(s.LastAfter()), ms(s.ServedAfter()), ms(s.Double()))
		if err := s.Judge(timing.TTL); err != nil {
			errs = append(errs, fmt.Errorf("%s %d/%d: %w", sc, i+1, runs, err))
		}
	}
	return all, errors.Join(errs...)
}

// slowestAppend returns the time in which 99 of 100 writes to the log end on the node that takes longest.
func slowestAppend(ctx context.Context, l *lab.Lab) (most time.Duration, err error) {
	for _, n := range l.Nodes() {
		s, err := n.Status(ctx)
		if err != nil {
			return 0, err
		}
		most = max(most, time.Duration(s.Process.AppendP99US)*time.Microsecond)
	}
	return most, nil
}

// appendsInElection is how often an election waits for a disk until the new leader has renewed a lease: see [core.Timing.SurvivesLeader].
const appendsInElection = 8

// writeStrikes prints the distributions for people. An election may take three heartbeat timeouts, until a follower stands, the time
// after which it begins again without a winner, and some appends to the log, of which 99 of 100 take no longer than append99.
func writeStrikes(w io.Writer, name string, all []lab.Strike, timing core.Timing, append99 time.Duration, profile string) error {
	margin, election := core.Margin(timing.TTL), 3*timing.RaftHeartbeat+timing.RaftElection+appendsInElection*append99
	runs := len(all)
	all = slices.DeleteFunc(slices.Clone(all), func(s lab.Strike) bool { return s.New == "" })
	fmt.Fprintf(w, "%s of the owner's daemon, profile %s, %d runs; lease %v, margin %v, one election up to %v (eight appends of %v in it).\n",
		name, profile, runs, timing.TTL, margin, election, append99)
	if len(all) == 0 {
		return nil
	}
	fmt.Fprintf(w, "In %d of them another node took over; of those, in ms:\n\n", len(all))
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "\tmin\tmedian\tp99\tmax\tbound\t")
	row := func(name string, field func(lab.Strike) time.Duration, bound string) {
		ds := slices.Sorted(slices.Values(mapStrikes(all, field)))
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t\n", name, ms(ds[0]), ms(median(ds)), ms(percentile(ds, 99)), ms(ds[len(ds)-1]), bound)
	}
	row("old node's last answer, after the fault", lab.Strike.LastAfter, ms(timing.TTL))
	row("left of the lease then", func(s lab.Strike) time.Duration { return timing.TTL - s.LastAfter() }, "> 0")
	row("another node's first answer, after the fault", lab.Strike.ServedAfter, ms(timing.TTL+margin+election))
	row("nobody answers", lab.Strike.Silence, "")
	row("two nodes answer", lab.Strike.Double, "0")
	row("longest pause of the prober", func(s lab.Strike) time.Duration { return s.Pause }, "")
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("print the figures: %w", err)
	}
	led, doubles, beyond := 0, 0, 0
	for _, s := range all {
		led += one(s.Led)
		doubles += one(len(s.Doubles) > 0)
		beyond += one(s.ServedAfter() > timing.TTL+margin+election)
	}
	_, err := fmt.Fprintf(w, "\n%d runs in which the owner led too; %d with two nodes that answered; %d served later than lease + margin + election\n\n",
		led, doubles, beyond)
	return err
}

func mapStrikes(all []lab.Strike, field func(lab.Strike) time.Duration) []time.Duration {
	ds := make([]time.Duration, len(all))
	for i, s := range all {
		ds[i] = field(s)
	}
	return ds
}

// percentile returns the nearest rank in sorted figures.
func percentile(sorted []time.Duration, p int) time.Duration {
	return sorted[max((len(sorted)*p+99)/100, 1)-1]
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}
