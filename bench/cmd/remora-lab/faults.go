package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-ha/remora/bench/lab"
	"github.com/remora-ha/remora/core"
)

// stateMiB is the size of the state directories' file systems: with the rooms taken in advance, some MiB are left.
const stateMiB = 40

type faultsOptions struct {
	common
	repeat int
	only   []string
	limit  time.Duration
}

func faultsCommand() *cobra.Command {
	var o faultsOptions
	cmd := &cobra.Command{
		Use:   "faults",
		Short: "Let everything go wrong, one thing after the other, and ask every node whether it answers",
		Long: `Lets each fault of the suite happen to the owner, again and again. All the time every node is asked by its own hardware
address, every millisecond, whether it answers ARP, ICMP or TCP for the virtual address. Exits with status 1 if two
nodes ever answered at once, if one announced the address while another answered, if the address moved where it should
have stayed or stayed where it should have moved, if it had to do either and nobody answered for longer than a lease with
its margin, an election, five times raft_heartbeat and a second, or if the cluster was not well again afterwards. Where the
address may move or stay, silence is printed and not judged.

One fault steps the wall clock of this machine ten seconds forward, twenty back and ten forward again, within half a second:
network namespaces have no clock of their own.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withFaultLab(cmd.Context(), o.common, o.limit, func(ctx context.Context, l *lab.Lab) error {
				return sufferAll(ctx, l, o, cmd.OutOrStdout())
			})
		},
	}
	o.flags(cmd)
	cmd.Flags().IntVar(&o.repeat, "repeat", 1, "how often the suite is run")
	cmd.Flags().StringSliceVar(&o.only, "only", nil, "faults to run, by parts of their names")
	cmd.Flags().DurationVar(&o.limit, "timeout", 2*time.Hour, "give up after this time")
	return cmd
}

func sufferAll(ctx context.Context, l *lab.Lab, o faultsOptions, out io.Writer) error {
	timing, err := core.ProfileTiming(o.profile)
	if err != nil {
		return err
	}
	var errs []error
	count := 0
	for run := range o.repeat {
		for _, f := range lab.Faults() {
			if len(o.only) > 0 && !slices.ContainsFunc(o.only, func(part string) bool { return strings.Contains(f.Name, part) }) {
				continue
			}
			s, err := l.Scene(ctx)
			if err != nil {
				return errors.Join(append(errs, err)...)
			}
			ordeal, err := l.Suffer(ctx, f, s)
			if err != nil {
				return errors.Join(append(errs, err)...)
			}
			count++
			fmt.Fprintf(out, "%d/%d %v\n", run+1, o.repeat, ordeal)
			if err := ordeal.Judge(f.Fate, lab.LongestSilence(timing)); err != nil {
				err = fmt.Errorf("%s: %w", f.Name, err)
				fmt.Fprintln(out, err)
				errs = append(errs, err)
			}
		}
	}
	fmt.Fprintf(out, "%d faults, %d not as they should be\n", count, len(errs))
	return errors.Join(errs...)
}

type soakOptions struct {
	common
	seed uint64
	span time.Duration
}

func soakCommand() *cobra.Command {
	var o soakOptions
	cmd := &cobra.Command{
		Use:   "soak",
		Short: "Let random faults happen to random nodes, for minutes, and ask every node whether it answers",
		Long: `Lets faults of the suite happen to random nodes for random times, sometimes two at once, until the time is over. What
happens follows from the seed; when, from the machine. Judges like "remora-lab faults", except that the address may always
move or stay, so silence is printed and not judged.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.seed == 0 {
				o.seed = rand.Uint64N(1_000_000) + 1
			}
			const spare = 10 * time.Minute
			return withFaultLab(cmd.Context(), o.common, o.span+spare, func(ctx context.Context, l *lab.Lab) error {
				out, count := cmd.OutOrStdout(), 0
				fmt.Fprintf(out, "seed %d, %v\n", o.seed, o.span)
				err := l.Soak(ctx, lab.SoakOptions{Seed: o.seed, Span: o.span, Heard: func(ordeal lab.Ordeal) {
					count++
					fmt.Fprintln(out, ordeal)
				}})
				fmt.Fprintf(out, "seed %d: %d faults\n", o.seed, count)
				return err
			})
		},
	}
	o.flags(cmd)
	cmd.Flags().Uint64Var(&o.seed, "seed", 0, "what happens follows from it; 0 takes a random one")
	cmd.Flags().DurationVar(&o.span, "for", 10*time.Minute, "how long faults go on")
	return cmd
}

// withFaultLab raises a laboratory whose state directories can be filled and frozen, and starts everything in it.
func withFaultLab(ctx context.Context, c common, limit time.Duration, use func(context.Context, *lab.Lab) error) error {
	opts, err := c.options()
	if err != nil {
		return err
	}
	opts.StateMiB = stateMiB
	return withLab(ctx, opts, func(l *lab.Lab) error {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		if err := l.StartServers(ctx); err != nil {
			return err
		}
		if _, err := l.StartStream(lab.StreamOptions{Interval: 5 * time.Millisecond}); err != nil {
			return err
		}
		if err := l.StartDaemons(); err != nil {
			return err
		}
		return use(ctx, l)
	})
}
