package cli

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-ha/remora/cmd/internal/control"
)

// complete offers names from the daemon's status to the shell, for the first few arguments. A shell that waits for a
// key has no use for errors: without a daemon there are no names.
func (a *app) complete(arguments int, names func(control.Status, []string) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) >= arguments {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), time.Second)
		defer cancel()
		s, err := a.daemon().Status(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return names(s, args), cobra.ShellCompDirectiveNoFileComp
	}
}

func groupNames(s control.Status, _ []string) []string {
	var names []string
	for _, g := range s.Groups {
		names = append(names, g.Name)
	}
	return names
}

// poolNames are the groups, and the reader groups as the configuration calls them.
func poolNames(s control.Status, args []string) []string {
	names := groupNames(s, args)
	for _, g := range s.Groups {
		if g.Pool != "" && !slices.Contains(names, g.Pool) {
			names = append(names, g.Pool)
		}
	}
	return names
}

// otherNodes are the nodes that a group could move to: all but witnesses and its owner.
func otherNodes(s control.Status, args []string) []string {
	var names []string
	for _, n := range s.Nodes {
		owner := false
		for _, g := range s.Groups {
			owner = owner || len(args) > 0 && g.Name == args[0] && g.Owner == n.Name
		}
		if !n.Witness && !owner {
			names = append(names, n.Name)
		}
	}
	return names
}

func completeFlag(c *cobra.Command, flag string, f cobra.CompletionFunc) {
	if err := c.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic("cli: " + err.Error()) // there is no such flag: a slip of ours
	}
}
