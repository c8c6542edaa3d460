package daemon

import (
	"context"
	"errors"
	"log/slog"

	"github.com/remora-ha/remora/cmd/internal/config"
	"github.com/remora-ha/remora/core"
)

// Options is what a daemon is started with.
type Options struct {
	// Config is the checked configuration, Path the file that it is read from again on reload.
	Config *config.Config
	Path   string
	// Self is this node.
	Self core.NodeSpec
	// DryRun takes part in everything and carries nothing out in the kernel.
	DryRun bool
	// Logger takes the log; nil discards it.
	Logger *slog.Logger
	// Version is the release of the binary, for status and reports.
	Version string
}

// Run runs the daemon until the context ends, then gives up what it holds in order.
func Run(ctx context.Context, o Options) error {
	return errors.New("the daemon is not wired yet")
}
