package daemon

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"reflect"
	"syscall"

	"github.com/remora-ha/remora/cmd/internal/config"
	"github.com/remora-ha/remora/core"
)

// reloads reads the file again at each SIGHUP.
func (d *daemon) reloads(ctx context.Context) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-hup:
			d.tell(d.notify.Reloading())
			if err := d.reload(); err != nil {
				d.log.Error("the file is not taken over, everything goes on as before", "file", d.opt.Path, "reason", err)
			}
			d.tell(d.notify.Ready())
		case <-ctx.Done():
			return
		}
	}
}

// reload takes over what can be changed while the daemon runs. If the file changes anything else, nothing of it is taken
// over.
func (d *daemon) reload() error {
	next, err := config.Load(d.opt.Path)
	if err != nil {
		return err
	}
	old := d.config()
	if err := fixed(old, next, d.opt.Self.Name); err != nil {
		return err
	}
	if problems := next.Unfenced(); d.unfenced && len(problems) > 0 {
		return fmt.Errorf("this kernel has no fence: %w", problems)
	}
	if problems := config.CheckHost(next, d.opt.Self.Name, config.ThisHost()).Errors(); len(problems) > 0 {
		return fmt.Errorf("the machine does not fit the file: %w", problems)
	}
	if err := d.node.Reload(); err != nil {
		return err
	}
	if err := d.actAs(old, next); err != nil {
		return err
	}
	d.reloaded.Store(next)
	d.health.use(next)
	if acts(old) != acts(next) {
		d.warmAnew()
	}
	d.agent.Deliver(core.ConfigOffered{Config: next.Core(), Interfaces: d.interfaces()})
	d.log.Info("the file was read again: certificates, accounts, what MHA may do and what it proposes to the cluster are in use",
		"file", d.opt.Path, "version", next.Version)
	return nil
}

// fixed returns an error that names everything that can only change with a restart.
func fixed(old, next *config.Config, self core.NodeName) error {
	var changed []string
	note := func(key string, same bool) {
		if !same {
			changed = append(changed, key)
		}
	}
	was, _ := old.Node(self)
	is, ok := next.Node(self)
	note("[[node]] "+string(self)+" (it is missing)", ok)
	note("[[node]] address of "+string(self), was.Address == is.Address)
	note("[[node]] witness of "+string(self), was.Witness == is.Witness)
	note("cluster", old.Cluster == next.Cluster)
	note("state_dir", old.StateDir == next.StateDir)
	note("socket", old.Socket == next.Socket)
	note("[process]", old.Process == next.Process)
	note("[metrics] listen, [[node]] metrics", old.MetricsFor(self) == next.MetricsFor(self))
	note("[tls] paths", old.TLS == next.TLS)
	note("[timing] or profile, other than ttl", sameTiming(old.Timing(), next.Timing()))
	for _, g := range old.Groups {
		note("interface of group "+string(g.Name)+" on this node", !known(next, g.Name) || old.InterfaceFor(self, g.Name) == next.InterfaceFor(self, g.Name))
	}
	note("[[group]] fence_port, fence_allow", reflect.DeepEqual(fenceOf(old), fenceOf(next)))
	note("[[group]] label", labelOf(old) == labelOf(next))
	// A server that this daemon has made writable must stay within its reach, and its port the one that the fence closes.
	note("[mysql] address, [[node]] mysql_address, mysql of "+string(self)+" with policy promote, or with graceful or clear_read_only under [mha]",
		!acts(old) && !acts(next) || sameServer(was, is))
	if len(changed) == 0 {
		return nil
	}
	return fmt.Errorf("these can only change with a restart of the daemon: %q", changed)
}

func known(c *config.Config, name core.GroupName) bool {
	_, ok := c.Group(name)
	return ok
}

// sameServer reports whether two tables of a node name the same server, for this node and for the others.
func sameServer(a, b config.Node) bool {
	return a.MySQL.Network == b.MySQL.Network && a.MySQL.Address == b.MySQL.Address && a.Server() == b.Server()
}

// sameTiming compares what a running daemon can not change. The length of the lease is the ledger's.
func sameTiming(a, b core.Timing) bool {
	a.TTL, b.TTL = 0, 0
	return a == b
}
