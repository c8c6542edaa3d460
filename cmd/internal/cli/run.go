package cli

import (
	"context"
	"io"
	"log/slog"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/remora-ha/remora/cmd/internal/config"
	"github.com/remora-ha/remora/cmd/internal/daemon"
	"github.com/remora-ha/remora/core"
)

func (a *app) runCommand() *cobra.Command {
	var path, node, level, format string
	var dryRun bool
	c := &cobra.Command{
		Use:   "run [--config FILE] [--node NAME] [--dry-run]",
		Short: "Run the daemon of this node",
		Long: `Run the daemon of this node in the foreground. The configuration and the machine are checked first; if anything
is wrong all of it is printed, the exit code is 2 and nothing was touched.

SIGTERM and SIGINT end it in order: unbind, verify, release, hand leadership on. SIGHUP reads the file again.`,
		Args: none,
		RunE: ran(func(cmd *cobra.Command, _ []string) error {
			log, err := newLogger(a.env.Stderr, level, format)
			if err != nil {
				return err
			}
			cfg, self, err := a.load(path, node, log)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return a.env.Run(ctx, daemon.Options{
				Config: cfg, Path: path, Self: self, DryRun: dryRun, Logger: log, Version: a.env.Version,
			})
		}),
	}
	c.Flags().StringVar(&path, "config", "/etc/remora/remora.toml", "the configuration, the same file on every node")
	c.Flags().StringVar(&node, "node", "", "the node to run; found by this machine's addresses if not given")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "take part, log every action in the kernel, and do none")
	c.Flags().StringVar(&level, "log-level", "info", "debug, info, warn or error")
	c.Flags().StringVar(&format, "log-format", "text", "text or json")
	return c
}

// load reads the file, finds this node in it and looks at the machine. Warnings go to the log.
func (a *app) load(path, node string, log *slog.Logger) (*config.Config, core.NodeSpec, error) {
	cfg, self, problems, err := a.check(path, node)
	if err != nil {
		return nil, self, err
	}
	if errs := problems.Errors(); len(errs) > 0 {
		return nil, self, problems
	}
	for _, p := range problems {
		p.Warning = false // the level says it
		log.WarnContext(context.Background(), "configuration", "problem", p.String())
	}
	return cfg, self, nil
}

// check returns everything that is wrong with a file and with this machine for it. The error is of the file alone.
func (a *app) check(path, node string) (*config.Config, core.NodeSpec, config.Problems, error) {
	cfg, err := config.Load(path)
	if err != nil {
		return nil, core.NodeSpec{}, nil, err
	}
	addrs, err := config.LocalAddrs()
	if err != nil {
		return nil, core.NodeSpec{}, nil, err
	}
	self, err := cfg.Self(node, addrs)
	if err != nil {
		return nil, self, nil, err
	}
	return cfg, self, append(cfg.Warnings, config.CheckHost(cfg, self.Name, a.env.Host)...), nil
}

func newLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	opts := new(slog.HandlerOptions)
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, usagef("--log-level %q: use debug, info, warn or error", level)
	}
	opts.Level = l
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, usagef("--log-format %q: use text or json", format)
}
