// Command remora-lab raises a laboratory of network namespaces with real MariaDB servers and Remora daemons on this
// machine, shows a takeover in it, measures how long a client waits, and clears it away. It needs root.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/remora-ha/remora/bench/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := rootCommand().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "remora-lab:", err)
		os.Exit(1)
	}
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "remora-lab",
		Short:         "A laboratory for Remora in network namespaces of this machine",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(demoCommand(), gapCommand(), frozenCommand(), faultsCommand(), soakCommand(), mhaCommand(), benchCommand(), loadCommand(), burnCommand(), reportCommand(), upCommand(),
		listCommand(), downCommand(), sweepCommand(), execCommand())
	return root
}

// common are the flags of all commands that raise a laboratory.
type common struct {
	remora, profile string
	verbose         bool
}

func (c *common) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.remora, "remora", "bin/remora", "path of the remora binary")
	cmd.Flags().StringVar(&c.profile, "profile", "lan", "timing profile of the daemons")
	cmd.Flags().BoolVarP(&c.verbose, "verbose", "v", false, "log what the laboratory does")
}

// options returns the options of a laboratory of three nodes with MariaDB.
func (c *common) options() (lab.Options, error) {
	path, err := filepath.Abs(c.remora)
	if err != nil {
		return lab.Options{}, fmt.Errorf("find the remora binary: %w", err)
	}
	if _, err := os.Stat(path); err != nil {
		return lab.Options{}, fmt.Errorf("find the remora binary: %w: build it with \"make build\"", err)
	}
	opts := lab.Options{Server: lab.MariaDB{}, Remora: path, Profile: c.profile}
	if c.verbose {
		opts.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return opts, nil
}

// withLab raises a laboratory, calls use and clears it away, or leaves it up if the options say so.
func withLab(ctx context.Context, opts lab.Options, use func(*lab.Lab) error) error {
	l, err := lab.New(ctx, opts)
	if err != nil {
		return err
	}
	err = use(l)
	switch {
	case ctx.Err() != nil:
		err = errors.New("interrupted")
	case err != nil:
		showLogs(l)
	}
	return errors.Join(err, l.Close())
}
