package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-ha/remora/cmd/internal/control"
)

// errChecks ends 'switchover --dry-run'.
var errChecks = errors.New("a condition of the switchover does not hold")

func (a *app) promoteCommand() *cobra.Command {
	var to, reason string
	var acceptLoss bool
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "promote GROUP --to NODE [--accept-loss] [--timeout DURATION]",
		Short: "Decide who becomes the primary of a group that nobody owns",
		Long: `Decide who becomes the primary of a group of policy promote that nobody owns, because the daemons have refused
to choose. 'remora status' says why they have.

Without --accept-loss the node is preferred among those that lack nothing. With it the node becomes the primary
although it lacks transactions that others have, or that the old primary is known to have executed: they are lost,
and a server that has them is set aside. A group that somebody owns is moved with 'remora switchover'.`,
		Example: "  remora promote writer --to db2 --accept-loss",
		Args:    exactly(1, "name the group, like 'remora promote writer --to db2'"),
		RunE: ran(func(cmd *cobra.Command, args []string) error {
			if to == "" {
				return usagef("name the node to be promoted for %s with --to NODE", args[0])
			}
			if timeout <= 0 {
				return usagef("--timeout %v must be positive", timeout)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			r, err := a.daemon().Promote(control.WithStages(ctx, a.stages()), control.PromoteRequest{Group: args[0], To: to, AcceptLoss: acceptLoss, Reason: a.asked(reason)})
			if err != nil {
				return operation(fmt.Sprintf("promotion of %s for %s", to, args[0]), err)
			}
			_, err = fmt.Fprintf(a.env.Stdout, "%s is the primary of %s after %d ms, epoch %d\n", r.To, r.Group, r.TookMS, r.Epoch)
			return err
		}),
	}
	c.ValidArgsFunction = a.complete(1, groupNames)
	c.Flags().StringVar(&to, "to", "", "the node that shall become the primary")
	completeFlag(c, "to", a.complete(2, otherNodes))
	c.Flags().BoolVar(&acceptLoss, "accept-loss", false, "give up the transactions that it lacks")
	c.Flags().StringVar(&reason, "reason", "", "what to write into the history")
	c.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait")
	return a.client(c)
}

func (a *app) rejoinCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "rejoin",
		Short: "Let this node's server, which was set aside, be compared again",
		Long: `Let the server of this node, which was set aside because it has transactions that the primary lacks, be compared
with the primary's again. It follows if it has nothing any more that the primary lacks: because it was built anew
from the primary, or because an operator has brought its transactions there. Else it is set aside again.`,
		Args: none,
		RunE: ran(func(cmd *cobra.Command, _ []string) error {
			if err := a.daemon().Rejoin(cmd.Context()); err != nil {
				return operation("rejoin", err)
			}
			_, err := fmt.Fprintln(a.env.Stdout, "the server is compared again; 'remora status' shows what came of it")
			return err
		}),
	}
	return a.client(c)
}

// plan prints what a switchover would do.
func (a *app) plan(ctx context.Context, group, to string) error {
	p, err := a.daemon().Plan(ctx, control.PlanRequest{Group: group, To: to})
	if err != nil {
		return operation(fmt.Sprintf("plan of a switchover of %s to %s", group, to), err)
	}
	fmt.Fprintf(a.env.Stdout, "switchover of %s from %s to %s\n", p.Group, cmp.Or(p.From, "nobody"), p.To)
	failed := false
	for _, c := range p.Checks {
		switch {
		case c.Failed != "":
			failed = true
			fmt.Fprintf(a.env.Stdout, "  FAILS %s: %s\n", c.What, c.Failed)
		case c.Open != "":
			fmt.Fprintf(a.env.Stdout, "  later %s: %s\n", c.What, c.Open)
		default:
			fmt.Fprintf(a.env.Stdout, "  ok    %s\n", c.What)
		}
	}
	if len(p.Steps) > 0 {
		fmt.Fprintln(a.env.Stdout, "what would be done")
	}
	for i, s := range p.Steps {
		fmt.Fprintf(a.env.Stdout, "  %d. %s\n", i+1, s)
	}
	if _, err := fmt.Fprintln(a.env.Stdout, "Nothing was changed."); err != nil {
		return err
	}
	if failed {
		return errChecks
	}
	return nil
}
