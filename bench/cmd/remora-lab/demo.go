package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-ha/remora/bench/lab"
)

func demoCommand() *cobra.Command {
	var c common
	var keep bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Three real nodes, two faults and a switchover, with a time line of each",
		Long: `Raises three nodes with real MariaDB servers in a ring and one virtual address. Kills the owner's server, takes
the power of the next owner's node, brings both back and moves the address in a planned way. Prints a time line of
each step. Exits with status 1 when a step failed or two nodes ever held the address at once.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts, err := c.options()
			if err != nil {
				return err
			}
			return withLab(cmd.Context(), opts, func(l *lab.Lab) error {
				if keep {
					l.Keep()
					defer howToLookAround(cmd.OutOrStdout(), l)
				}
				return (&demo{l: l, out: cmd.OutOrStdout()}).run(cmd.Context())
			})
		},
	}
	c.flags(cmd)
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the laboratory up afterwards")
	return cmd
}

// demo is one showing.
type demo struct {
	l       *lab.Lab
	out     io.Writer
	reports []lab.Report
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

func (d *demo) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := d.raise(ctx); err != nil {
		return err
	}
	first := d.l.Holder(d.l.VIP())
	var second string
	steps := []func() error{
		func() error { return d.killServer(ctx, first) },
		func() error {
			second = d.l.Holder(d.l.VIP())
			return d.powerOff(ctx, second)
		},
		func() error { return d.bringBack(ctx, first, second) },
		func() error { return d.switchover(ctx, first) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return errors.Join(err, d.verdict())
		}
	}
	return d.verdict()
}

func (d *demo) raise(ctx context.Context) error {
	start := time.Now()
	d.say("Raising three nodes with MariaDB in a ring, one virtual address %v, a client ...", d.l.VIP())
	if err := d.l.Up(ctx, lab.StreamOptions{Interval: 2 * time.Millisecond}); err != nil {
		return err
	}
	if err := d.l.WaitStable(ctx); err != nil {
		return err
	}
	for _, n := range d.l.Nodes() {
		d.say("  %s  %v  %v", n.Name, n.Addr, n.MAC)
	}
	d.say("%s serves %v. Up after %.1f s. A client opens a new connection every 2 ms.",
		d.l.Holder(d.l.VIP()), d.l.VIP(), time.Since(start).Seconds())
	return nil
}

// step runs one step and prints its time line.
func (d *demo) step(ctx context.Context, title string, s lab.Step) error {
	s.Name = title
	d.say("\n== %s", title)
	r, err := d.l.Run(ctx, s)
	d.reports = append(d.reports, r)
	if werr := r.Write(d.out, lab.Milestones()); werr != nil {
		return errors.Join(err, werr)
	}
	if err == nil {
		d.say("  %s -> %s", r.Before, r.After)
	}
	return err
}

func (d *demo) killServer(ctx context.Context, owner string) error {
	return d.step(ctx, "1. The owner's server is killed (kill -9 of mariadbd on "+owner+")", lab.Step{
		Act:  func(context.Context) error { return d.l.Node(owner).SignalServer(syscall.SIGKILL) },
		Done: func(ctx context.Context) error { return d.moved(ctx, owner) },
	})
}

func (d *demo) powerOff(ctx context.Context, owner string) error {
	return d.step(ctx, "2. The new owner's whole node dies ("+owner+": link first, then everything)", lab.Step{
		Act:  func(context.Context) error { return d.l.Node(owner).PowerOff() },
		Done: func(ctx context.Context) error { return d.moved(ctx, owner) },
	})
}

func (d *demo) bringBack(ctx context.Context, first, second string) error {
	owner := d.l.Holder(d.l.VIP())
	return d.step(ctx, "3. Both come back; the address stays where it is", lab.Step{
		Act: func(ctx context.Context) error {
			if err := d.l.Node(second).PowerOn(ctx); err != nil {
				return err
			}
			return d.l.Node(first).StartServer(ctx)
		},
		Done: func(ctx context.Context) error {
			if err := errors.Join(d.l.WaitReplicating(ctx), d.l.WaitStable(ctx)); err != nil {
				return err
			}
			if now := d.l.Holder(d.l.VIP()); now != owner {
				return fmt.Errorf("%v went from %s to %s although nothing was wrong with %s", d.l.VIP(), owner, now, owner)
			}
			return nil
		},
	})
}

func (d *demo) switchover(ctx context.Context, to string) error {
	return d.step(ctx, "4. A planned switchover to "+to, lab.Step{
		Act: func(ctx context.Context) error { return d.l.Switchover(ctx, to) },
		Done: func(ctx context.Context) error {
			_, err := d.l.WaitOwner(ctx, to)
			return err
		},
	})
}

// moved waits until another node than from holds the address and answers there.
func (d *demo) moved(ctx context.Context, from string) error {
	if _, err := d.l.WaitMoved(ctx, from); err != nil {
		return err
	}
	return d.l.WaitServed(ctx, d.l.Stream())
}

// verdict sums up and says whether two nodes ever held the address.
func (d *demo) verdict() error {
	d.say("\n== Summary: the client's longest time without an answer")
	for _, r := range d.reports {
		d.say("  %8.1f ms  %s", float64(r.Client.Gap.Microseconds())/1000, r.Name)
	}
	overlaps, err := d.l.Overlaps(d.l.VIP())
	if err != nil {
		return fmt.Errorf("judge who held the address: %w", err)
	}
	if len(overlaps) > 0 {
		return fmt.Errorf("two nodes held %v at once: %+v", d.l.VIP(), overlaps)
	}
	d.say("At no time did two nodes hold %v, by the kernel's own address events.", d.l.VIP())
	return nil
}
