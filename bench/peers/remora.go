package peers

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/remora-ha/remora/bench/lab"
)

// Remora is Remora with one of its profiles.
type Remora struct {
	Lab     *lab.Lab
	Profile string
}

// Name returns "remora-" and the profile.
func (r Remora) Name() string { return "remora-" + r.Profile }

// Title names the profile.
func (r Remora) Title() string { return "Remora, profile " + r.Profile }

// Start begins with an empty ledger.
func (r Remora) Start(ctx context.Context) error {
	if err := r.Lab.ResetDaemons(r.Profile); err != nil {
		return err
	}
	for _, n := range r.Lab.Nodes() {
		if err := n.StartDaemon(); err != nil {
			return err
		}
	}
	return r.Settle(ctx)
}

// Stop asks all daemons to end in order.
func (r Remora) Stop(context.Context) error {
	var errs []error
	for _, n := range r.Lab.Nodes() {
		errs = append(errs, n.StopDaemon())
	}
	return errors.Join(errs...)
}

// Settle starts a daemon that was killed and waits until all is well.
func (r Remora) Settle(ctx context.Context) error {
	for _, n := range r.Lab.Nodes() {
		if d := n.Daemon(); d != nil && !d.Running() {
			if err := n.StartDaemon(); err != nil {
				return err
			}
		}
	}
	return errors.Join(r.Lab.WaitStable(ctx), served(ctx, r.Lab))
}

// Move is an operator's switchover.
func (r Remora) Move(ctx context.Context, _, to string) error { return r.Lab.Switchover(ctx, to) }

// Kill kills the daemon.
func (r Remora) Kill(node string) error { return r.Lab.Node(node).KillDaemon() }

// Freeze stops the daemon.
func (r Remora) Freeze(node string) error { return r.Lab.Node(node).SignalDaemon(syscall.SIGSTOP) }

// Thaw lets the daemon run on.
func (r Remora) Thaw(node string) error { return r.Lab.Node(node).SignalDaemon(syscall.SIGCONT) }

// Config returns the first node's file.
func (r Remora) Config() string {
	text, err := os.ReadFile(r.Lab.Nodes()[0].ConfigPath())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Patience is far beyond the longest lease.
func (r Remora) Patience() time.Duration { return 10 * time.Second }
