package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/remora-ha/remora/consensus"
	"github.com/remora-ha/remora/core"
)

func (a *app) recoverCommand() *cobra.Command {
	var path, node, cluster, reason string
	c := &cobra.Command{
		Use:   "recover --config FILE --cluster NAME",
		Short: "Let this node go on alone after the majority was lost for good",
		Long: `Let this node go on alone after the majority of the nodes was lost for good. The daemon of this node must not run.

Be sure that the lost nodes stay lost: power them off, or empty their state directories. With the state that they
have they could go on as the cluster that they were, beside this one. Afterwards start the daemon here; the other
nodes join with empty state directories. The name of the cluster is asked for so that nobody does this by mistake.

Run it as root or as the user to whom state_dir belongs; what it writes belongs to that user in either case.`,
		Args: none,
		RunE: ran(func(*cobra.Command, []string) error {
			cfg, self, _, err := a.check(path, node)
			if err != nil {
				return err
			}
			if cluster != cfg.Cluster {
				return usagef("--cluster %q: the cluster of %s is %q; name it to confirm", cluster, path, cfg.Cluster)
			}
			if err := becomeOwner(cfg.StateDir, os.Geteuid()); err != nil {
				return fmt.Errorf("recover: %w", err)
			}
			err = consensus.Recover(cfg.StateDir, self.Name, core.NewLedger(), reason, slog.New(slog.DiscardHandler))
			if errors.Is(err, consensus.ErrInUse) {
				return fmt.Errorf("recover: %w: stop the daemon first", err)
			}
			if err != nil {
				return fmt.Errorf("recover: %w", err)
			}
			_, err = fmt.Fprintf(a.env.Stdout, "%s is the only voter of cluster %s now.\nNext: start its daemon; empty %s on the other nodes, then start theirs.\n",
				self.Name, cfg.Cluster, cfg.StateDir)
			return err
		}),
	}
	c.Flags().StringVar(&path, "config", "/etc/remora/remora.toml", "the configuration, the same file on every node")
	c.Flags().StringVar(&node, "node", "", "the node that this machine is; found by its addresses if not given")
	c.Flags().StringVar(&cluster, "cluster", "", "the name of the cluster, to confirm")
	c.Flags().StringVar(&reason, "reason", "the majority was lost", "why, for the history")
	return c
}
