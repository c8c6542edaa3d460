package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"

	"github.com/remora-ha/remora/cmd/internal/config"
	"github.com/remora-ha/remora/consensus"
	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/agent"
	"github.com/remora-ha/remora/netio"
)

// kernel is netio's binder with the classes of its errors in the agent's terms.
type kernel struct{ *netio.Binder }

func (kernel) Late(err error) bool   { return errors.Is(err, netio.ErrLate) }
func (kernel) Absent(err error) bool { return errors.Is(err, netio.ErrAbsent) }

// lateConsensus is the consensus, which is made after the agent that it delivers to.
type lateConsensus struct{ *consensus.Node }

// binderPort and announcerPort are what the agent acts through.
func (d *daemon) binderPort() agent.Binder {
	if d.opt.DryRun {
		return dryRun{d.log}
	}
	var binder agent.Binder = clientsBinder{kernel{d.binder}, d.clients}
	if d.metrics != nil {
		binder = d.metrics.Binder(binder)
	}
	if d.keeper != nil {
		return watchedBinder{binder, d.keeper}
	}
	return binder
}

func (d *daemon) announcerPort() agent.Announcer {
	if d.opt.DryRun {
		return dryRun{d.log}
	}
	return clientsAnnouncer{traced{d.binder, d.recorder}, d.clients}
}

// label is the address label of the groups. The kernel's binder has one for all, the first that a group asks for.
func (d *daemon) label() string { return labelOf(d.cfg) }

func labelOf(c *config.Config) string {
	for _, g := range c.Groups {
		if g.Label != "" {
			return g.Label
		}
	}
	return ""
}

// interfaces names the interfaces of groups on this node.
func (d *daemon) interfaces() map[core.GroupName]string {
	cfg, self := d.config(), d.opt.Self.Name
	m := map[core.GroupName]string{"": cfg.InterfaceFor(self, "")}
	for _, g := range cfg.Groups {
		m[g.Name] = cfg.InterfaceFor(self, g.Name)
	}
	return m
}

func (d *daemon) localInterface(g core.GroupSpec) string {
	if name := d.config().InterfaceFor(d.opt.Self.Name, g.Name); name != "" {
		return name
	}
	return g.Interface
}

// dryRun stands in for the kernel: it says what it would do, and does nothing.
type dryRun struct{ log *slog.Logger }

func (d dryRun) Bind(_ context.Context, a core.Bind) error {
	d.log.Info("dry run: would bind", "group", a.Group, "epoch", a.Epoch, "addresses", a.Spec.Addresses, "interface", a.Spec.Interface)
	return nil
}

func (d dryRun) Extend(_ context.Context, a core.Extend) error {
	d.log.Debug("dry run: would extend the lifetime", "group", a.Group, "epoch", a.Epoch)
	return nil
}

func (dryRun) Prolong(core.Prolong) {}

func (d dryRun) Unbind(_ context.Context, a core.Unbind) error {
	d.log.Info("dry run: would unbind", "group", a.Group, "epoch", a.Epoch, "addresses", a.Spec.Addresses)
	return nil
}

func (dryRun) Arm(context.Context, core.Arm) error { return nil }

func (d dryRun) Probe(_ context.Context, a core.Probe) (net.HardwareAddr, error) {
	d.log.Info("dry run: would probe the link", "group", a.Group, "epoch", a.Epoch, "addresses", a.Spec.Addresses, "interface", a.Spec.Interface)
	return nil, nil
}

func (d dryRun) Announce(_ context.Context, a core.Announce) error {
	d.log.Info("dry run: would announce", "group", a.Group, "epoch", a.Epoch, "addresses", a.Spec.Addresses, "interface", a.Spec.Interface)
	return nil
}

func (dryRun) Late(error) bool   { return false }
func (dryRun) Absent(error) bool { return false }
