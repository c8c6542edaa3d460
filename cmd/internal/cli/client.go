package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/user"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-ha/remora/cmd/internal/config"
	"github.com/remora-ha/remora/cmd/internal/control"
)

// client makes a command one that speaks to the daemon.
func (a *app) client(c *cobra.Command) *cobra.Command {
	c.Flags().StringVar(&a.socket, "socket", cmp.Or(a.env.Getenv("REMORA_SOCKET"), config.DefaultSocket),
		"the daemon's socket; REMORA_SOCKET sets the default")
	return c
}

func (a *app) daemon() *control.Client { return control.Local(a.socket) }

// asked says for the log and the history who asked for something.
func (a *app) asked(reason string) string {
	who := "somebody"
	if u, err := user.Current(); err == nil {
		who = u.Username
	}
	if reason == "" {
		return "asked for by " + who
	}
	return reason + " (" + who + ")"
}

func (a *app) statusCommand() *cobra.Command {
	var asJSON, check bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Show who owns which address, how the nodes are, and what is not as it should be",
		Long: `Show the cluster as the daemon of this machine sees it: a line for each group, a table of the nodes, and a
sentence for each thing that is not as it should be.

With --json the output has a documented form with a version, see docs/status.md.
With --check the exit code is 4 if anything is not as it should be.`,
		Args: none,
		RunE: ran(func(cmd *cobra.Command, _ []string) error {
			s, err := a.daemon().Status(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				err = a.printJSON(s)
			} else {
				err = s.WriteText(a.env.Stdout)
			}
			if err == nil && check && len(s.Problems) > 0 {
				return errUnwell
			}
			return err
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON in the documented form")
	c.Flags().BoolVar(&check, "check", false, "exit with 4 if anything is not as it should be")
	return a.client(c)
}

func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.env.Stdout)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("print JSON: %w", err)
	}
	return nil
}

func (a *app) switchoverCommand() *cobra.Command {
	var to, reason string
	var dryRun, end bool
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "switchover GROUP --to NODE [--dry-run] [--timeout DURATION]",
		Short: "Move a group to another node, as planned work",
		Long: `Move a group to another node and wait until that node serves it. The present owner gives the addresses up
first. It is refused, with the reason and nothing changed, if the other node could not serve.

With policy promote the old primary becomes read-only first, the other node applies all that it has not yet, and
becomes the primary; no transaction is lost. What fails before the other node was granted the group leads back: the
old primary is writable again. What fails after that leads to a new choice. The message says which it was.

While it goes on each stage is printed to standard error: when it began, what is done in it, and how long the one
before took.

With --dry-run the state of each condition and the plan are printed, and the exit code is 1 if one does not hold.`,
		Example: "  remora switchover writer --to db2",
		Args:    exactly(1, "name the group to move, like 'remora switchover writer --to db2'"),
		RunE: ran(func(cmd *cobra.Command, args []string) error {
			if to == "" {
				return usagef("name the node to move %s to with --to NODE", args[0])
			}
			if timeout <= 0 {
				return usagef("--timeout %v must be positive", timeout)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			if dryRun {
				return a.plan(ctx, args[0], to)
			}
			r, err := a.daemon().Switchover(control.WithStages(ctx, a.stages()), control.SwitchoverRequest{Group: args[0], To: to, Reason: a.asked(reason), EndTransactions: end})
			if err != nil {
				return operation(fmt.Sprintf("switchover of %s to %s", args[0], to), err)
			}
			_, err = fmt.Fprintf(a.env.Stdout, "%s moved from %s to %s in %d ms, epoch %d\n", r.Group, cmp.Or(r.From, "nobody"), r.To, r.TookMS, r.Epoch)
			return err
		}),
	}
	c.ValidArgsFunction = a.complete(1, groupNames)
	c.Flags().StringVar(&to, "to", "", "the node that shall own the group")
	completeFlag(c, "to", a.complete(2, otherNodes))
	c.Flags().StringVar(&reason, "reason", "", "what to write into the history")
	c.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to wait")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "print the plan and the state of each condition, and change nothing")
	c.Flags().BoolVar(&end, "end-transactions", false, "with policy promote: end transactions that are older than drain allows")
	return a.client(c)
}

// stages prints the stages of an operation as they come: when each began, what is done in it, and how long the one before took.
func (a *app) stages() func(control.Stage) {
	var last *control.Stage
	return func(s control.Stage) {
		took := ""
		if last != nil {
			took = fmt.Sprintf(" (after %.1f ms)", float64(s.AtUS-last.AtUS)/1000)
		}
		fmt.Fprintf(a.env.Stderr, "%9.1f ms  %s%s\n", float64(s.AtUS)/1000, s.Text, took)
		last = &s
	}
}

// operation puts the name of what was tried before a daemon's answer.
func operation(what string, err error) error {
	var ce *control.Error
	if !errors.As(err, &ce) {
		return err
	}
	if ce.Code == control.CodeRefused {
		return fmt.Errorf("%s refused: %w", what, err)
	}
	return fmt.Errorf("%s failed: %w", what, err)
}

func (a *app) pauseCommand(on bool) *cobra.Command {
	var reason string
	verb, past := "resume", "resumed"
	c := &cobra.Command{
		Use:   "resume [GROUP]",
		Short: "End a pause of one group or of all",
		Long:  "End a pause of one group, or of all groups if none is named: ownership may change again.",
	}
	if on {
		verb, past = "pause", "paused"
		c.Use = "pause [GROUP]"
		c.Short = "Freeze the ownership of one group or of all, for maintenance"
		c.Long = `Freeze the ownership of one group, of all addresses of one reader group, or of all groups if none is named.
MySQL may be restarted and upgraded and nothing moves; leases are still renewed. If the owner's machine dies
meanwhile the group stays down until it is back or the pause ends.`
	}
	c.Args = atMost(1, "name one group, or none for all")
	c.ValidArgsFunction = a.complete(1, poolNames)
	c.RunE = ran(func(cmd *cobra.Command, args []string) error {
		req := control.PauseRequest{On: on, Reason: a.asked(reason)}
		what := "all groups"
		if len(args) == 1 {
			req.Group, what = args[0], args[0]
		}
		if err := a.daemon().Pause(cmd.Context(), req); err != nil {
			return operation(verb+" of "+what, err)
		}
		_, err := fmt.Fprintf(a.env.Stdout, "%s %s\n", what, past)
		return err
	})
	c.Flags().StringVar(&reason, "reason", "", "what to write into the history")
	return a.client(c)
}

func (a *app) historyCommand() *cobra.Command {
	var asJSON, traced bool
	var req control.HistoryRequest
	c := &cobra.Command{
		Use:   "history",
		Short: "Show the changes of ownership and their reasons, the newest last",
		Long: `Show the changes of ownership and their reasons, the newest last. The history is kept in the replicated log: it
is the same on every node and survives any of them.

With --trace it shows for each grant where the milliseconds went: what each node measured of its own part on its own
clock, and bounds of the whole. Each node keeps its part of the last 64 takeovers in memory, until its daemon ends. The
instant of the fault and the first answer to a client are known to neither.`,
		Args: none,
		RunE: ran(func(cmd *cobra.Command, _ []string) error {
			if req.Limit < 0 {
				return usagef("--limit %d must not be negative", req.Limit)
			}
			if traced {
				return a.traces(cmd.Context(), req, asJSON)
			}
			entries, err := a.daemon().History(cmd.Context(), req)
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(historyJSON{control.Schema, append([]control.HistoryEntry{}, entries...)})
			}
			return control.WriteHistory(a.env.Stdout, entries)
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON in the documented form")
	c.Flags().BoolVar(&traced, "trace", false, "show where the milliseconds of each takeover went")
	c.Flags().StringVar(&req.Group, "group", "", "only this group")
	completeFlag(c, "group", a.complete(1, groupNames))
	c.Flags().IntVar(&req.Limit, "limit", 20, "only so many of the newest; 0 for all that are kept")
	return a.client(c)
}

// traces shows the newest grants with what the nodes remember of them.
func (a *app) traces(ctx context.Context, req control.HistoryRequest, asJSON bool) error {
	history, err := a.daemon().History(ctx, control.HistoryRequest{})
	if err != nil {
		return err
	}
	r, err := a.daemon().Trace(ctx, control.TraceRequest{})
	if err != nil {
		return err
	}
	entries := control.Traced(history, r, req.Group, req.Limit)
	if asJSON {
		return a.printJSON(tracesJSON{control.Schema, entries})
	}
	return control.WriteTraces(a.env.Stdout, entries)
}

// tracesJSON is the documented form of the history with traces.
type tracesJSON struct {
	Schema  int                   `json:"schema"`
	Entries []control.TracedEntry `json:"entries"`
}

// historyJSON is the documented form of the history.
type historyJSON struct {
	Schema  int                    `json:"schema"`
	Entries []control.HistoryEntry `json:"entries"`
}
