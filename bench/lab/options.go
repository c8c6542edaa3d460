package lab

import (
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
)

// The network of every laboratory. Namespaces keep laboratories apart, so all may use the same one.
const (
	// Interface is the name of the only interface of a node, the client and the router.
	Interface = "eth0"
	// PeerPort is the port at which daemons talk to one another.
	PeerPort = 7400
	// ServerPort is the port of the database servers.
	ServerPort = 3306

	prefixBits4 = 24
	prefixBits6 = 64

	hostRouter  = 1
	hostNode    = 11 // the first node with a server
	hostWitness = 20 // the first witness
	hostVIP     = 100
	hostClient  = 200

	maxNodes     = hostWitness - hostNode
	maxWitnesses = hostVIP - hostWitness
)

// hostAddr4 returns 10.77.0.host.
func hostAddr4(host int) netip.Addr { return netip.AddrFrom4([4]byte{10, 77, 0, byte(host)}) }

// hostAddr6 returns fd77::host, with the decimal digits of the IPv4 address's last byte.
func hostAddr6(host int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("fd77::%d", host)) }

// DefaultVIP is the virtual address of a laboratory that names none.
func DefaultVIP() netip.Prefix { return netip.PrefixFrom(hostAddr4(hostVIP), 32) }

// DefaultVIP6 is the IPv6 address that a laboratory may have besides, see [Options.VIPs].
func DefaultVIP6() netip.Prefix { return netip.PrefixFrom(hostAddr6(hostVIP), 128) }

// NodeOptions describes one node.
type NodeOptions struct {
	Name string
	// Witness marks a node that votes and never owns. It has no database server and an address of its own range.
	Witness bool
}

// Options describes a laboratory. The zero value is three nodes without servers and daemons, and one VIP.
type Options struct {
	// Name tells this laboratory from others; a random one is made if it is empty.
	Name string
	// Nodes are the nodes; empty means db1, db2 and db3.
	Nodes []NodeOptions
	// VIPs are the addresses that the observers watch and that the writer group holds, of either family; empty means
	// 10.77.0.100/32. The first is the one that a laboratory's judgements are about where nothing else is said.
	VIPs []netip.Prefix
	// Crowd is how many addresses there are besides, from 10.78.0.0 on, which the observers do not watch. They are in the
	// writer group, and what a group does not take in more groups like it.
	Crowd int
	// Server makes the database servers; nil means none.
	Server Flavor
	// Remora is the path of the daemon's binary; empty means no daemons.
	Remora string
	// Profile is the timing profile of the daemons; empty means lan.
	Profile string
	// Policy is the policy of the writer group; empty means any.
	Policy string
	// Replicas makes the first server the primary and the others its replicas, where else all are primaries in a ring. Each
	// starts read-only, and the daemons' configuration has the replication account.
	Replicas bool
	// Timing overrides single values of the profile, for example "ttl": "400ms".
	Timing map[string]string
	// ExtraConfig is appended to the daemons' configuration as it is.
	ExtraConfig string
	// StateMiB puts each daemon's state directory on a file system of its own, of so many MiB; 0 does not.
	StateMiB int
	// Root is the directory in which each laboratory has one of its own, by its name; empty means DefaultRoot.
	Root string
	// NoIPv6 switches IPv6 off in all namespaces.
	NoIPv6 bool
	// Log receives what the laboratory does; nil discards it.
	Log *slog.Logger
}

// complete fills what is empty and checks the rest.
func (o Options) complete() (Options, error) {
	if len(o.Nodes) == 0 {
		o.Nodes = []NodeOptions{{Name: "db1"}, {Name: "db2"}, {Name: "db3"}}
	}
	if len(o.VIPs) == 0 {
		o.VIPs = []netip.Prefix{DefaultVIP()}
	}
	o.Name = orDefault(o.Name, randomName())
	o.Profile = orDefault(o.Profile, "lan")
	o.Policy = orDefault(o.Policy, "any")
	root, err := filepath.Abs(orDefault(o.Root, DefaultRoot()))
	if err != nil {
		return o, fmt.Errorf("find the directory %s: %w", o.Root, err)
	}
	o.Root = root
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o, o.check()
}

func (o Options) check() error {
	if strings.ContainsAny(o.Name, "/ \t\n") {
		return fmt.Errorf("the laboratory's name %q must not hold slashes or blanks", o.Name)
	}
	// The path of a unix socket may be 107 bytes long, unix(7); the longest here is DIR/NODE/remora.sock.
	const room = 80
	if len(o.dir()) > room {
		return fmt.Errorf("the directory %s is longer than %d bytes: unix sockets in it could not be named", o.dir(), room)
	}
	seen := map[string]bool{"client": true, "router": true, "switch": true, pkiDir: true}
	nodes, witnesses := 0, 0
	for _, n := range o.Nodes {
		if n.Name == "" || len(n.Name) > 10 || seen[n.Name] || strings.ContainsAny(n.Name, "/ \t\n") {
			return fmt.Errorf("node name %q: use a short name once, without blanks, other than client, router, switch and pki", n.Name)
		}
		seen[n.Name] = true
		if n.Witness {
			witnesses++
		} else {
			nodes++
		}
	}
	if o.NoIPv6 && o.hasIPv6() {
		return fmt.Errorf("an IPv6 address among %v, and IPv6 is switched off in all namespaces: leave one of the two out", o.VIPs)
	}
	if nodes > maxNodes || witnesses > maxWitnesses {
		return fmt.Errorf("%d nodes and %d witnesses: at most %d and %d fit into the address plan",
			nodes, witnesses, maxNodes, maxWitnesses)
	}
	return nil
}

// hasIPv6 reports whether one of the VIPs is an IPv6 address.
func (o Options) hasIPv6() bool {
	return slices.ContainsFunc(o.VIPs, func(p netip.Prefix) bool { return p.Addr().Is6() })
}

// wildcard returns the bind_address of the servers.
func (o Options) wildcard() string {
	if o.hasIPv6() {
		return "*" // both families
	}
	return "0.0.0.0"
}

// served returns all addresses of all groups.
func (o Options) served() []netip.Prefix {
	served := slices.Clone(o.VIPs)
	for i := range o.Crowd {
		served = append(served, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 78, byte(i >> 8), byte(i)}), 32))
	}
	return served
}

// dir returns the laboratory's directory.
func (o Options) dir() string { return filepath.Join(o.Root, o.Name) }

func orDefault(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}
