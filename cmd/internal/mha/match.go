package mha

import (
	"fmt"
	"net/netip"
	"strings"
)

// Node is a node as far as matching goes.
type Node struct {
	Name string
	// Addresses are those by which it may be called: that of its peers' port and that of its MySQL server.
	Addresses []netip.Addr
	// Aliases are further names and addresses from the configuration.
	Aliases []string
	Witness bool
}

// Match returns the node that a server is on. The host counts first: name, alias, address; then the IP. A host and an IP
// that point to two nodes are refused, because one of them is wrong.
func Match(nodes []Node, s Server) (Node, error) {
	byHost, hostKnown := find(nodes, s.Host)
	byIP, ipKnown := find(nodes, s.IP)
	switch {
	case hostKnown && ipKnown && byHost.Name != byIP.Name:
		return Node{}, fmt.Errorf("%s is node %s, but its address %s is node %s: correct app1.cnf or the aliases in remora.toml",
			shorten(s.Host), byHost.Name, shorten(s.IP), byIP.Name)
	case hostKnown:
		return byHost, nil
	case ipKnown:
		return byIP, nil
	}
	return Node{}, fmt.Errorf("no node is called %s: add the name to aliases of the right [[node]] in remora.toml", called(s))
}

func called(s Server) string {
	switch {
	case s.Host != "" && s.IP != "" && s.Host != s.IP:
		return fmt.Sprintf("%q or %q", shorten(s.Host), shorten(s.IP))
	default:
		return fmt.Sprintf("%q", shorten(s.String()))
	}
}

// find returns the node that a name or address belongs to. Names are compared without regard to case, as DNS does.
func find(nodes []Node, name string) (Node, bool) {
	if name == "" {
		return Node{}, false
	}
	addr, err := netip.ParseAddr(name)
	for _, n := range nodes {
		if strings.EqualFold(n.Name, name) {
			return n, true
		}
		for _, a := range n.Aliases {
			if strings.EqualFold(a, name) {
				return n, true
			}
		}
		for _, a := range n.Addresses {
			if err == nil && a == addr.Unmap() {
				return n, true
			}
		}
	}
	return Node{}, false
}
