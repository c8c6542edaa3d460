package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-ha/remora/bench/lab"
)

// mhaRun is one failover by a real MHA.
type mhaRun struct {
	hooks string // remora or classical
	cut   bool   // the primary's node is cut off; else its server is killed
}

// mhaFigures is what came of it.
type mhaFigures struct {
	mhaRun
	inHooks time.Duration
	// outage is how long the client got no answer, floor how long MHA needed until it called start.
	outage, floor time.Duration
	holders       int // nodes with the address at the end, after a cut node is back
}

func mhaCommand() *cobra.Command {
	var o common
	var limit time.Duration
	cmd := &cobra.Command{
		Use:   "mha",
		Short: "Let a real MHA fail over with Remora's hook and with a classical one, and print what each costs",
		Long: `Raises a laboratory with three servers, a real MHA 0.58 and real sshd for each of four failovers: mysqld killed and the
node cut off, with Remora's hooks and with the classical script that runs ip and arping over ssh. Prints the time inside
the hooks, the client's outage, the part of it before MHA calls start, and how many nodes have the address at the end.
Exits with status 1 if with Remora's hooks the address is not on exactly one node.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), limit)
			defer cancel()
			var all []mhaFigures
			for _, r := range []mhaRun{{"remora", false}, {"classical", false}, {"remora", true}, {"classical", true}} {
				f, err := measureMHA(ctx, o, r)
				if err != nil {
					return err
				}
				fmt.Fprintln(cmd.ErrOrStderr(), f)
				all = append(all, f)
			}
			return printMHA(cmd.OutOrStdout(), all)
		},
	}
	o.flags(cmd)
	cmd.Flags().DurationVar(&limit, "timeout", 15*time.Minute, "give up after this time")
	return cmd
}

func (f mhaFigures) String() string {
	what := "mysqld killed"
	if f.cut {
		what = "node cut off"
	}
	return fmt.Sprintf("%s, %s: %v in hooks, outage %v", f.hooks, what, f.inHooks.Round(time.Millisecond), f.outage.Round(time.Millisecond))
}

func measureMHA(ctx context.Context, o common, r mhaRun) (mhaFigures, error) {
	f := mhaFigures{mhaRun: r}
	opts, err := o.options()
	if err != nil {
		return f, err
	}
	opts.Policy = "follow"
	opts.Nodes = []lab.NodeOptions{{Name: "db1"}, {Name: "db2"}, {Name: "db3"}, {Name: "mgr", Witness: true}}
	binary := opts.Remora
	return f, withLab(ctx, opts, func(l *lab.Lab) error {
		m, err := raiseMHA(ctx, l, r, binary)
		if err != nil {
			return err
		}
		return f.fail(ctx, l, m)
	})
}

// raiseMHA brings up servers, the address and MHA.
func raiseMHA(ctx context.Context, l *lab.Lab, r mhaRun, binary string) (*lab.MHA, error) {
	if err := errors.Join(l.LaunchServers(ctx), l.FollowPrimary(ctx, "db1")); err != nil {
		return nil, err
	}
	if r.hooks == "remora" {
		if err := l.StartDaemons(); err != nil {
			return nil, err
		}
	} else if _, err := l.Node("db1").NS.Command(ctx, "ip", "addr", "add", l.VIP().String()+"/32", "dev", lab.Interface); err != nil {
		return nil, err
	}
	if _, err := l.WaitOwner(ctx, "db1"); err != nil {
		return nil, err
	}
	m, err := l.NewMHA(ctx, "mgr", nil)
	if err != nil {
		return nil, err
	}
	line := binary + " mha failover"
	if r.hooks != "remora" {
		if line, err = m.Classical(); err != nil {
			return nil, err
		}
	}
	timed, err := m.Timed("failover", line)
	if err != nil {
		return nil, err
	}
	return m, m.WriteConfig(map[string]string{"master_ip_failover_script": timed})
}

// fail lets MHA fail over and takes the figures.
func (f *mhaFigures) fail(ctx context.Context, l *lab.Lab, m *lab.MHA) error {
	s, err := l.StartStream(lab.StreamOptions{Interval: 5 * time.Millisecond})
	if err != nil {
		return err
	}
	p, err := m.Start("masterha_manager", "--ignore_last_failover")
	if err != nil {
		return err
	}
	if err := errors.Join(l.WaitServed(ctx, s), m.WaitWatching(ctx, p)); err != nil {
		return err
	}
	from := time.Now()
	if f.cut {
		err = l.Drop("db1", lab.Both)
	} else {
		err = l.Node("db1").KillServer()
	}
	if err := errors.Join(err, p.Wait(ctx)); err != nil {
		return err
	}
	if code := p.ExitCode(); code != 0 {
		return fmt.Errorf("masterha_manager ended with %d: %s", code, m.Output("masterha_manager"))
	}
	if err := s.WaitAnswered(ctx, 20); err != nil {
		return err
	}
	f.outage = s.Stats(from, time.Now()).Gap
	calls, err := m.HookCalls()
	if err != nil {
		return err
	}
	for _, c := range calls {
		if c.Start.Before(from) {
			continue
		}
		f.inHooks += c.End.Sub(c.Start)
		if c.Command == "start" {
			f.floor = c.Start.Sub(from)
		}
	}
	return f.count(ctx, l)
}

// count heals the network and counts who has the address, once a node that was cut off is heard again.
func (f *mhaFigures) count(ctx context.Context, l *lab.Lab) error {
	if err := l.HealAll(); err != nil {
		return err
	}
	if f.hooks == "remora" && f.cut { // else the dead server stays dead
		if err := l.WaitStable(ctx); err != nil {
			return err
		}
	}
	for _, n := range l.Nodes() {
		out, err := n.NS.Command(ctx, "ip", "-o", "addr", "show", "to", l.VIP().String())
		if err != nil {
			return err
		}
		if len(out) > 0 {
			f.holders++
		}
	}
	return nil
}

func printMHA(w io.Writer, all []mhaFigures) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "hooks\tfault\tin hooks\tclient's outage\tuntil MHA calls start\toutage beyond that\taddress on\t")
	var errs []error
	for _, f := range all {
		what := "mysqld killed"
		if f.cut {
			what = "node cut off"
		}
		fmt.Fprintf(tw, "%s\t%s\t%.0f ms\t%.2f s\t%.2f s\t%.0f ms\t%d\t\n", f.hooks, what, float64(f.inHooks)/1e6, f.outage.Seconds(), f.floor.Seconds(),
			float64(f.outage-f.floor)/1e6, f.holders)
		if f.hooks == "remora" && f.holders != 1 {
			errs = append(errs, fmt.Errorf("%s: the address is on %d nodes", what, f.holders))
		}
	}
	return errors.Join(tw.Flush(), errors.Join(errs...))
}
