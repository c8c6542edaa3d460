package config

import "net/netip"

// metrics checks where the nodes offer their metrics. It comes after nodes and groups, whose addresses it must not use.
func (c *checker) metrics() {
	const key = "[metrics] listen"
	raw := c.raw.Metrics.Listen
	if at := c.metricsAddress(raw, key); at.IsValid() {
		if !at.Addr().IsLoopback() {
			c.bad(raw.at, key, "%s is an address of one machine, and this table is for all nodes: use 127.0.0.1 here, and metrics = \"%s\" in the [[node]] table of that machine", at, at)
		}
		c.cfg.Metrics = at
	}
	for i := range c.cfg.Nodes {
		c.cfg.Nodes[i].Metrics = c.metricsAddress(c.raw.Nodes[i].Metrics, nodeTable+" metrics")
	}
}

// metricsAddress checks one address, which is not valid where the key is missing or wrong.
func (c *checker) metricsAddress(t text, key string) netip.AddrPort {
	if !t.set() || !c.isWellFormed(t.at, key) {
		return netip.AddrPort{}
	}
	at, err := netip.ParseAddrPort(t.val)
	if err != nil {
		c.bad(t.at, key, "%q is not an IP address with a port: write it like \"127.0.0.1:9104\", or delete the key to offer no metrics", shorten(t.val))
		return netip.AddrPort{}
	}
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	switch a := at.Addr(); {
	case at.Port() == 0:
		c.bad(t.at, key, "%q has port 0: write a fixed port, like 9104", t.val)
	case a.IsUnspecified():
		c.bad(t.at, key, "%q would answer at the groups' addresses, too: write one address that stays with the machine", t.val)
	case a.IsMulticast():
		c.bad(t.at, key, "%q is nothing to listen on: write one address of the machine, usually 127.0.0.1", t.val)
	default:
		if taken := c.takenBy(at); taken != "" {
			c.bad(t.at, key, "%q is the address of %s: write one that stays with the machine, and a port of its own", t.val, taken)
			return netip.AddrPort{}
		}
		return at
	}
	return netip.AddrPort{}
}

// takenBy says whose address it is: a group's, at any port, or the one at which a node is reached by the others.
func (c *checker) takenBy(at netip.AddrPort) string {
	for _, g := range c.cfg.Groups {
		for _, vip := range g.Addresses {
			if vip.Addr() == at.Addr() {
				return "group " + string(g.table())
			}
		}
	}
	for _, n := range c.cfg.Nodes {
		if n.Address == at {
			return "node " + string(n.Name)
		}
	}
	return ""
}
