package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"github.com/remora-ha/remora/cmd/internal/config"
	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/agent"
	"github.com/remora-ha/remora/detector"
	"github.com/remora-ha/remora/netio"
)

// newActor makes what acts on this node's server under policy promote and on MHA's advice, and nil on a witness, which has
// none. It connects to nothing before its Run, which keeps its connections warm until its context ends.
func newActor(cfg *config.Config, self core.NodeName, log *slog.Logger) (*detector.Actor, error) {
	n, ok := cfg.Node(self)
	if !ok || n.Witness {
		return nil, nil
	}
	a, err := ActorOf(n.MySQL, cfg.Replication, log)
	if err != nil {
		return nil, fmt.Errorf("act on MySQL: %w", err)
	}
	return a, nil
}

// ActorOf makes what acts on the server at m, with the account r for what it asks the server's source. log may be nil.
func ActorOf(m config.MySQL, r config.Replication, log *slog.Logger) (*detector.Actor, error) {
	address := m.Address
	if m.Network == "unix" {
		address = "unix:" + address
	}
	return detector.NewActor(detector.ActorConfig{
		Address: address, User: m.User, Password: m.Password, ReplicationUser: r.User, ReplicationPassword: r.Password,
		ReplicationTLS: detector.ReplicationTLS{Enabled: r.TLS, CA: r.CA, VerifyName: r.VerifyName},
		Clock:          netio.Boottime, Logger: log,
	})
}

// serverPort is what the agent acts on MySQL through. A dry run has none: each act is answered as impossible.
func (d *daemon) serverPort() agent.Server {
	if d.actor == nil || d.opt.DryRun {
		return nil
	}
	return d.actor
}

// keepWarm holds the connections for acts on the server open, where a group may need them in a hurry.
func (d *daemon) keepWarm(ctx context.Context) error {
	promotes := slices.ContainsFunc(d.opt.Config.Groups, func(g config.Group) bool { return g.Policy == core.Promote })
	if d.actor == nil || d.opt.DryRun || !promotes && !d.opt.Config.MHA.ActsOnServers() {
		return nil
	}
	return d.actor.Run(ctx)
}
