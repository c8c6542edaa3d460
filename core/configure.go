package core

import (
	"fmt"
	"net/netip"
	"slices"
)

// configure adopts a configuration. What an owner has bound stays as it is until the owner has released it.
func (l *Ledger) configure(index Index, c Config) string {
	if c.Version <= l.view.Config.Version {
		return fmt.Sprintf("configuration version %d is not newer than %d", c.Version, l.view.Config.Version)
	}
	if why := c.check(); why != "" {
		return why
	}
	for name, g := range l.view.Groups {
		if !slices.ContainsFunc(c.Groups, func(s GroupSpec) bool { return s.Name == name }) && !g.Retired {
			g.Index, g.Retired, g.Next, g.Move = index, true, nil, nil
			if g.Owner == "" {
				g.Spec.Addresses = nil
			}
			l.view.Groups[name] = g
		}
	}
	for _, spec := range c.Groups {
		g := l.view.Groups[spec.Name]
		if g.Retired {
			g.Reason = "" // what was said of its end explains nothing any more
		}
		g.Index, g.Retired, g.Next = index, false, nil
		switch {
		case g.Owner == "":
			g.Proved = g.Proved && sameBinding(g.Spec, spec)
			g.Spec = spec
		case sameBinding(g.Spec, spec):
			g.Spec = spec
		default:
			g.Next = &spec
		}
		l.view.Groups[spec.Name] = g
	}
	l.view.Config = c
	l.view.Longest = max(l.view.Longest, c.TTL)
	return ""
}

func (l *Ledger) settle(op Settle) string {
	if op.Version != l.view.Config.Version {
		return fmt.Sprintf("the configuration has version %d by now", l.view.Config.Version)
	}
	l.view.Longest = l.view.Config.TTL
	return ""
}

// check returns the first thing that makes c unfit for the ledger. Files are checked more thoroughly before.
func (c Config) check() string {
	if c.TTL <= 0 {
		return fmt.Sprintf("a lease of %d ms is no lease", c.TTL)
	}
	owner, promoted := map[netip.Addr]GroupName{}, GroupName("")
	for _, g := range c.Groups {
		if g.Policy == Promote {
			if promoted != "" {
				return fmt.Sprintf("groups %s and %s both have policy promote: a server is the primary for one group only", promoted, g.Name)
			}
			promoted = g.Name
		}
		if why := g.unknown(); why != "" {
			return why
		}
		for _, p := range g.Addresses {
			if other, taken := owner[p.Addr()]; taken {
				return fmt.Sprintf("address %s is in group %s and in group %s", p.Addr(), other, g.Name)
			}
			owner[p.Addr()] = g.Name
		}
	}
	return ""
}

// unknown returns what of a group this release does not know, or nothing.
func (g GroupSpec) unknown() string {
	switch {
	case g.Role == Writer && g.Pool == "" && (g.Policy == AnyHealthy || g.Policy == Follow || g.Policy == Promote):
		return ""
	case g.Role == Reader && g.Policy == "" && g.Pool != "" && !g.Preempt:
		return ""
	}
	return fmt.Sprintf("group %s has role %q, policy %q and pool %q, which do not go together in this release", g.Name, g.Role, g.Policy, g.Pool)
}

// sameBinding reports whether two specs put the same addresses on the same interface.
func sameBinding(a, b GroupSpec) bool {
	return a.Interface == b.Interface && slices.Equal(a.Addresses, b.Addresses)
}

// taken returns why a group can not be granted with the addresses that it would have, or nothing: another group that is
// not released still has one of them.
func (v View) taken(g GroupState) string {
	g.change()
	var holder GroupName // the first by name, so that all nodes give the same reason
	var held netip.Addr
	for name, other := range v.Groups {
		if name == g.Spec.Name || other.Owner == "" || holder != "" && holder < name {
			continue
		}
		if a, shared := sharedAddress(g.Spec, other.Spec); shared {
			holder, held = name, a
		}
	}
	if holder == "" {
		return ""
	}
	return fmt.Sprintf("address %s still belongs to group %s, which is not released", held, holder)
}

func sharedAddress(a, b GroupSpec) (netip.Addr, bool) {
	for _, p := range a.Addresses {
		for _, q := range b.Addresses {
			if p.Addr() == q.Addr() {
				return p.Addr(), true
			}
		}
	}
	return netip.Addr{}, false
}
