package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"golang.org/x/sync/errgroup"

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
	return detector.NewActor(detector.ActorConfig{Account: accountOf(m, r), Clock: netio.Boottime, Logger: log})
}

func accountOf(m config.MySQL, r config.Replication) detector.Account {
	return detector.Account{
		Address: m.Dial(), User: m.User, Password: m.Password, ReplicationUser: r.User, ReplicationPassword: r.Password,
		ReplicationTLS: detector.ReplicationTLS{Enabled: r.TLS, CA: r.CA, VerifyName: r.VerifyName},
	}
}

// actAs makes acts on this node's server use the accounts of the next file, if they are others. Those of the old one would be
// connected anew for nothing.
func (d *daemon) actAs(old, next *config.Config) error {
	was, _ := old.Node(d.opt.Self.Name)
	is, _ := next.Node(d.opt.Self.Name)
	if d.actor == nil || was.MySQL == is.MySQL && old.Replication == next.Replication {
		return nil
	}
	if err := d.actor.Use(accountOf(is.MySQL, next.Replication)); err != nil {
		return fmt.Errorf("act on MySQL: %w", err)
	}
	return nil
}

// serverPort is what the agent acts on MySQL through. A dry run has none: each act is answered as impossible.
func (d *daemon) serverPort() agent.Server {
	if d.actor == nil || d.opt.DryRun {
		return nil
	}
	return d.actor
}

// acts reports whether, by a file, this daemon may change the mode of its server.
func acts(cfg *config.Config) bool {
	promotes := slices.ContainsFunc(cfg.Groups, func(g config.Group) bool { return g.Policy == core.Promote })
	return promotes || cfg.MHA.ActsOnServers()
}

// keepWarm holds the connections for acts on the server open, where the file says that a group may need them in a hurry.
func (d *daemon) keepWarm(ctx context.Context) error {
	if d.actor == nil || d.opt.DryRun {
		return nil
	}
	for ctx.Err() == nil {
		warm, cool := context.WithCancel(ctx)
		var running errgroup.Group
		if acts(d.config()) {
			running.Go(func() error { return d.actor.Run(warm) })
		}
		select {
		case <-d.rewarm:
		case <-ctx.Done():
		}
		cool()
		if err := running.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// warmAnew has keepWarm look at the file again. It does not wait. Connections of another account are made by the actor itself.
func (d *daemon) warmAnew() {
	select {
	case d.rewarm <- struct{}{}:
	default: // it will look anyway
	}
}
