package daemon

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/remora-ha/remora/cmd/internal/config"
	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/detector"
	"github.com/remora-ha/remora/netio"
)

// readOnlyWithin bounds the question, at an orderly end, whether the server is read-only.
const readOnlyWithin = 2 * time.Second

// toGuard is what the ledger says of the fence.
type toGuard struct {
	groups []core.GroupSpec
	nodes  []core.NodeSpec
}

// portFence returns which ports of this node the fence closes, nil for none: that of its server, if a group of policy
// promote says so. Open is it to all members, those of the ledger and those of the file, and to those whom the file permits.
func portFence(cfg *config.Config, self core.NodeName, g toGuard) *netio.PortFence {
	n, ok := cfg.Node(self)
	i := slices.IndexFunc(cfg.Groups, func(g config.Group) bool { return g.FencePort })
	if !ok || n.Witness || i < 0 {
		return nil
	}
	group := cfg.Groups[i]
	p := &netio.PortFence{Lease: group.Addresses[0].Addr(), Ports: []uint16{n.Server().Port()}, Permit: slices.Clone(group.FenceAllow)}
	for _, spec := range g.groups {
		if spec.Name == group.Name && len(spec.Addresses) > 0 {
			p.Lease = spec.Addresses[0].Addr()
		}
	}
	if at, err := netip.ParseAddrPort(n.MySQL.Address); err == nil && at.Port() != p.Ports[0] {
		p.Ports = append(p.Ports, at.Port()) // peers come by another one, through a proxy
	}
	nodes := slices.Clone(g.nodes)
	for _, n := range cfg.Nodes {
		nodes = append(nodes, n.NodeSpec)
	}
	for _, n := range nodes {
		for _, a := range []netip.Addr{n.Address.Addr().Unmap(), n.Server().Addr().Unmap()} {
			p.Permit = append(p.Permit, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	slices.SortFunc(p.Permit, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	p.Permit = slices.Compact(p.Permit)
	return p
}

// fenceOf returns what a file says of the fence of ports.
func fenceOf(cfg *config.Config) (allow []netip.Prefix) {
	for _, g := range cfg.Groups {
		if g.FencePort {
			return append([]netip.Prefix{}, g.FenceAllow...)
		}
	}
	return nil
}

// guardAll has the fence guard what the ledger says: the server's port first, so that it is never without the one that
// opens it.
func (d *daemon) guardAll(g toGuard) error {
	if d.fence != nil {
		if err := d.fence.SetPorts(portFence(d.config(), d.opt.Self.Name, g)); err != nil {
			return err
		}
	}
	return d.binder.Guard(g.groups)
}

// mayOpenPort reports whether the fence may be taken away after an orderly end. A server whose port it closes must be known
// to be read-only.
func (d *daemon) mayOpenPort() bool {
	if portFence(d.config(), d.opt.Self.Name, toGuard{}) == nil {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), readOnlyWithin)
	defer cancel()
	n, _ := d.config().Node(d.opt.Self.Name)
	secret, err := n.MySQL.Password()
	readOnly := core.Unknown
	if err == nil {
		readOnly, err = detector.AskOnce(ctx, n.MySQL.Dial(), n.MySQL.User, secret)
	}
	if readOnly == core.Yes {
		return true
	}
	d.log.Warn("the server's port stays closed to all but the members, because the server is not known to be read-only: start the daemon again, or open it with 'nft delete table inet "+netio.FenceTable+"'",
		"read_only", readOnly.String(), "error", err)
	return false
}
