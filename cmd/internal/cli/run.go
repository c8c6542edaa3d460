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
	"github.com/remora-ha/remora/cmd/internal/logqueue"
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
			log, lines, err := newLogger(a.env.Stderr, level, format)
			if err != nil {
				return err
			}
			defer lines.Close()
			cfg, self, err := a.load(path, node, log)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			err = a.env.Run(ctx, daemon.Options{
				Config: cfg, Path: path, Self: self, DryRun: dryRun, Logger: log, Version: a.env.Version,
			})
			if err == nil {
				return nil
			}
			printError(lines, err) // like the log: what nobody reads must not keep the process from its end
			return exitStatus(exitCode(&ranError{err}))
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

// newLogger returns a logger before w that waits for no reader of w, and the queue that it writes to, which is to be closed at the
// end.
func newLogger(w io.Writer, level, format string) (*slog.Logger, *logqueue.Queue, error) {
	opts := new(slog.HandlerOptions)
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, nil, usagef("--log-level %q: use debug, info, warn or error", level)
	}
	opts.Level = l
	var to func(io.Writer) slog.Handler
	switch format {
	case "text":
		to = func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, opts) }
	case "json":
		to = func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, opts) }
	default:
		return nil, nil, usagef("--log-format %q: use text or json", format)
	}
	direct := slog.New(to(w))
	q := logqueue.New(w, func(lines uint64) {
		direct.Error("lines of the log were dropped here, because what reads the log stood still or was too slow", "lines", lines)
	})
	return slog.New(to(q)), q, nil
}
