package config

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/remora-ha/remora/core"
)

// maxNodes bounds the voters: each more costs every commit and helps no longer.
const maxNodes = 7

const maxPriority = 1000

const nodeTable = "[[node]]"

func (c *checker) nodes() {
	if len(c.raw.Nodes) == 0 {
		c.missingTable("node", "there are no nodes: add one [[node]] table with name and address for each machine that runs remora")
		return
	}
	c.cfg.at["nodes"] = c.raw.Nodes[0].Header.At
	if len(c.raw.Nodes) > maxNodes {
		c.bad(c.raw.Nodes[maxNodes].Header.At, nodeTable, "there are %d nodes, and all of them vote: use at most %d; three or five are enough",
			len(c.raw.Nodes), maxNodes)
	}
	names, addrs, hosts := map[string]pos{}, map[netip.AddrPort]text{}, map[netip.Addr]text{}
	for i := range c.raw.Nodes {
		n := c.node(&c.raw.Nodes[i])
		raw := c.raw.Nodes[i]
		if first, twice := names[raw.Name.val]; twice && raw.Name.val != "" {
			c.bad(raw.Name.at, nodeTable+" name", "%q is the name of the node in line %d too: give each node its own", raw.Name.val, first.line)
		} else {
			names[raw.Name.val] = raw.Name.at
		}
		c.aliasesTwice(raw.Aliases, names)
		c.nodeAddressTwice(n, raw.Address, addrs, hosts)
		c.cfg.Nodes = append(c.cfg.Nodes, n)
	}
}

func (c *checker) nodeAddressTwice(n Node, t text, addrs map[netip.AddrPort]text, hosts map[netip.Addr]text) {
	if !n.Address.IsValid() {
		return
	}
	first, sameHost := hosts[n.Address.Addr()]
	switch other, same := addrs[n.Address]; {
	case same:
		c.bad(t.at, nodeTable+" address", "%s is the address of the node in line %d too: give each node its own", n.Address, other.at.line)
	case sameHost && !n.Address.Addr().IsLoopback():
		c.warn(t.at, nodeTable+" address", "the node in line %d has the same IP address: two nodes on one machine fail together", first.at.line)
	}
	addrs[n.Address], hosts[n.Address.Addr()] = t, t
}

func (c *checker) node(raw *rawNode) Node {
	name := c.name(raw.Name, raw.Header, nodeTable, "name", "a name for the node, like \"db1\"")
	n := Node{
		NodeSpec:  core.NodeSpec{Name: core.NodeName(name), Witness: raw.Witness.val, Priority: int(raw.Priority.val)},
		Interface: raw.Interface.val,
		MySQL:     c.cfg.MySQL,
	}
	n.Address = c.nodeAddress(raw)
	n.Aliases = c.aliases(raw.Aliases)
	c.interfaceName(raw.Interface, nodeTable+" interface")
	c.cfg.at["node.interface."+name] = raw.Interface.at
	if raw.Interfaces.at.line > 0 {
		n.Interfaces = map[core.GroupName]string{}
		c.cfg.at["node.interfaces."+name] = raw.Interfaces.at
		for _, p := range raw.Interfaces.items {
			n.Interfaces[core.GroupName(p.key)] = p.val.val
			c.interfaceName(p.val, nodeTable+" interfaces")
		}
	}
	if raw.MySQLAddress.val != "" {
		n.MySQL.Network, n.MySQL.Address = c.serverAddress(raw.MySQLAddress, nodeTable+" mysql_address")
	}
	n.NodeSpec.MySQL = c.peerServer(raw.MySQL)
	if p := raw.Priority.val; p < 0 || p > maxPriority {
		c.bad(raw.Priority.at, nodeTable+" priority", "is %d: use 0 to %d, the higher is preferred", p, maxPriority)
	}
	if raw.Witness.val {
		c.witness(raw)
	}
	return n
}

// witness warns of settings that a node without MySQL has no use for.
func (c *checker) witness(raw *rawNode) {
	for _, s := range []struct {
		at  pos
		key string
	}{
		{raw.Priority.at, "priority"}, {raw.Interface.at, "interface"}, {raw.Interfaces.at, "interfaces"},
		{raw.MySQLAddress.at, "mysql_address"}, {raw.MySQL.at, "mysql"},
	} {
		if s.at.line > 0 {
			c.warn(s.at, nodeTable+" "+s.key, "has no effect on a witness, which never owns an address: delete it")
		}
	}
}

func (c *checker) nodeAddress(raw *rawNode) netip.AddrPort {
	const key = nodeTable + " address"
	if !c.required(raw.Address, raw.Header, nodeTable, "address", "where the other nodes reach this one, like \"10.77.0.11:7400\"") {
		return netip.AddrPort{}
	}
	ap, err := netip.ParseAddrPort(raw.Address.val)
	if err != nil {
		if _, err := netip.ParseAddr(raw.Address.val); err == nil {
			c.bad(raw.Address.at, key, "%q has no port: write \"%s\"", raw.Address.val, joinPort(raw.Address.val))
		} else {
			c.bad(raw.Address.at, key, "%q is not an IP address with a port: write it like \"10.77.0.11:7400\" (no host names: the daemon asks no name server)",
				shorten(raw.Address.val))
		}
		return netip.AddrPort{}
	}
	a := ap.Addr().Unmap()
	switch {
	case ap.Port() == 0:
		c.bad(raw.Address.at, key, "%q has port 0: write a fixed port, like 7400", raw.Address.val)
	case a.IsUnspecified() || a.IsMulticast():
		c.bad(raw.Address.at, key, "%q is no address of one machine: write the one under which the other nodes reach this node", raw.Address.val)
	case a.IsLinkLocalUnicast():
		c.bad(raw.Address.at, key, "%q is a link-local address, which means another machine on every interface: write a routable one", raw.Address.val)
	default:
		return netip.AddrPortFrom(a, ap.Port())
	}
	return netip.AddrPort{}
}

func joinPort(addr string) string {
	return netip.AddrPortFrom(netip.MustParseAddr(addr), 7400).String()
}

// interfaceName checks a name against the kernel's rule (dev_valid_name in net/core/dev.c: at most IFNAMSIZ-1 bytes, no
// slash, colon or blank, not "." or "..").
func (c *checker) interfaceName(t text, key string) {
	if t.val == "" {
		return
	}
	const longest = 15
	if len(t.val) > longest || t.val == "." || t.val == ".." || strings.ContainsAny(t.val, "/: \t\r\n\v\f\x00") {
		c.bad(t.at, key, "%q is no name of a network interface: those have at most %d letters, without '/', ':' and blanks", shorten(t.val), longest)
	}
}

// together checks what only all tables together can show.
func (c *checker) together() {
	c.votes()
	c.ownAddresses()
	c.interfaces()
}

// votes looks at the size of the cluster.
func (c *checker) votes() {
	n, owners := len(c.cfg.Nodes), 0
	for _, node := range c.cfg.Nodes {
		if !node.Witness {
			owners++
		}
	}
	at := c.cfg.at["nodes"]
	switch {
	case n == 0 || n > maxNodes:
	case owners == 0:
		c.bad(at, nodeTable+" witness", "every node is a witness, so nobody could own an address: remove witness = true from those that have a MySQL server")
	case n == 1:
		c.warn(at, nodeTable, "one node alone gives no failover: add a second database node and a witness")
	case n == 2:
		c.warn(at, nodeTable, "two nodes give no failover, because one of them alone is no majority: add a third, at least a witness")
	case n%2 == 0:
		c.warn(at, nodeTable, "%d nodes survive the loss of no more nodes than %d would: remove one or add a witness", n, n-1)
	}
	if n >= 2 && owners == 1 {
		c.warn(at, nodeTable+" witness", "only one node is no witness, so its addresses have nowhere to go")
	}
}

// ownAddresses refuses groups that contain the address by which a node is reached.
func (c *checker) ownAddresses() {
	for _, g := range c.raw.Groups {
		for _, t := range g.Addresses.items {
			vip, err := parsePrefix(t.val)
			if err != nil {
				continue
			}
			for _, n := range c.cfg.Nodes {
				if n.Address.IsValid() && n.Address.Addr() == vip.Addr() {
					c.bad(t.at, groupTable+" addresses", "%s is node %s's own address, which must stay with the node: choose an address that no machine has", vip.Addr(), n.Name)
				}
			}
		}
	}
}

// interfaces sees to it that every group has an interface on every node that could own it.
func (c *checker) interfaces() {
	for i, g := range c.cfg.Groups {
		if i > 0 && c.of[i] == c.of[i-1] {
			continue // another address of the same table
		}
		var without []string
		for _, n := range c.cfg.Nodes {
			if !n.Witness && c.cfg.InterfaceFor(n.Name, g.Name) == "" {
				without = append(without, cmp.Or(string(n.Name), "(without a name)"))
			}
		}
		raw := c.of[i]
		if len(without) > 0 && c.isWellFormed(raw.Interface.at, groupTable+" interface") {
			at := raw.Interface.at
			if at.line == 0 {
				at = raw.Header.At
			}
			c.bad(at, groupTable+" interface", "is missing, and %s set none of their own: set it to the network interface that carries the addresses, like \"eth0\"",
				plural(without, "node", "nodes"))
		}
	}
	for _, n := range c.raw.Nodes {
		for _, p := range n.Interfaces.items {
			if !slices.Contains(c.groupNames(), p.key) {
				c.bad(p.val.at, nodeTable+" interfaces", "%s", withNearest("there is no group \""+shorten(p.key)+"\"", p.key, c.groupNames()))
			}
		}
	}
}

func plural(names []string, one, many string) string {
	if len(names) == 1 {
		return one + " " + names[0]
	}
	return many + " " + strings.Join(names, ", ")
}

// groupNames returns the names of the tables.
func (c *checker) groupNames() []string {
	var names []string
	for _, g := range c.raw.Groups {
		names = append(names, g.Name.val)
	}
	return names
}
