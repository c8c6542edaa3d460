package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/remora-ha/remora/core"
)

// Defaults of settings that a file may leave out.
const (
	DefaultStateDir = "/var/lib/remora"
	DefaultSocket   = "/run/remora/remora.sock"
	DefaultUser     = "remora"
)

// Config is a file that was read and found free of contradictions.
type Config struct {
	// Path is the name of the file, for messages.
	Path string
	// Version orders the configurations of a cluster. What all nodes must agree on lives in the ledger: a file only
	// proposes it, and takes effect when its version is higher than the ledger's.
	Version  uint64
	Cluster  string
	Profile  string
	StateDir string
	Socket   string
	MySQL    MySQL
	// Replication is the account that servers follow one another with; its User is empty if the file has none.
	Replication Replication
	TLS         TLS
	Process     Process
	MHA         MHA
	// Metrics is where each node offers its metrics, unless its own table says otherwise; not valid if nowhere.
	Metrics netip.AddrPort
	Nodes   []Node
	Groups  []Group
	// Warnings are problems that do not keep the daemon from starting.
	Warnings Problems

	timing core.Timing
	at     map[string]pos // where keys stand, for CheckHost
}

// MySQL says how a node reaches its own server.
type MySQL struct {
	// Network is "tcp" or "unix", Address an IP address with port or the path of a socket.
	Network, Address string
	User             string
	// PasswordFile is empty for a user without a password.
	PasswordFile string
}

// MHA bounds what the advice of MHA may do, see docs/mha.md.
type MHA struct {
	// Wait is how long a group waits for start after a stop.
	Wait time.Duration
	// Waive is how long a node may serve after a start while its server is still read-only.
	Waive time.Duration
	// Graceful makes the old primary's server read-only at the stop of a planned change, with Drain for its transactions, and
	// writable again when the change comes to nothing.
	Graceful bool
	Drain    time.Duration
	// ClearReadOnly makes the new primary's server writable at start, before its address answers.
	ClearReadOnly bool
}

// ActsOnServers reports whether MHA's advice may change a server's mode.
func (m MHA) ActsOnServers() bool { return m.Graceful || m.ClearReadOnly }

// Replication says as whom a server logs in at the one that it replicates from.
type Replication struct {
	User string
	// PasswordFile is read by the daemon, and its content given to the server in CHANGE MASTER.
	PasswordFile string
	// TLS protects the connection between the servers. CA is a file that the server reads; it may be empty. VerifyName
	// refuses a source whose certificate does not bear its address.
	TLS        bool
	CA         string
	VerifyName bool
}

// Password reads the password file like that of MySQL.
func (r Replication) Password() (string, error) {
	return MySQL{User: r.User, PasswordFile: r.PasswordFile}.Password()
}

// TLS names the PEM files that a node shows and trusts.
type TLS struct{ CA, Cert, Key string }

// Node is a [[node]] table.
type Node struct {
	core.NodeSpec
	// Interface replaces the interface of every group on this node, unless Interfaces names another for the group.
	Interface  string
	Interfaces map[core.GroupName]string
	// Aliases are further names and addresses by which MHA may call the node.
	Aliases []string
	// Metrics replaces the Metrics of the Config on this node if it is valid.
	Metrics netip.AddrPort
	// MySQL is the server of this node; it has no meaning on a witness.
	MySQL MySQL
}

// Group is a [[group]] table, or one address of a [[group]] table with role = "reader": it has the name of the table and the
// address, and the table's name as its Pool.
type Group struct {
	core.GroupSpec
	// Label is what the address label (IFA_LABEL, IPv4 only) has behind the interface and a colon; it may be empty.
	Label string
	// FencePort says that the kernel's lease also closes the server's own port, to all but the members and FenceAllow. Both
	// are for policy promote.
	FencePort  bool
	FenceAllow []netip.Prefix
}

// table is the name of the [[group]] table that a group comes from.
func (g Group) table() core.GroupName { return cmp.Or(g.Pool, g.Name) }

// Core returns the part of the configuration that all nodes must agree on.
func (c *Config) Core() core.Config {
	out := core.Config{Version: c.Version, Cluster: c.Cluster, TTL: core.Millis(c.timing.TTL.Milliseconds())}
	for _, n := range c.Nodes {
		out.Nodes = append(out.Nodes, n.NodeSpec)
	}
	for _, g := range c.Groups {
		spec := g.GroupSpec
		spec.Addresses = slices.Clone(g.Addresses)
		out.Groups = append(out.Groups, spec)
	}
	return out
}

// Timing returns the profile's durations with the changes of the [timing] table.
func (c *Config) Timing() core.Timing { return c.timing }

// Node returns the table of a node.
func (c *Config) Node(name core.NodeName) (Node, bool) {
	i := slices.IndexFunc(c.Nodes, func(n Node) bool { return n.Name == name })
	if i < 0 {
		return Node{}, false
	}
	return c.Nodes[i], true
}

// MetricsFor returns where a node offers its metrics; the address is not valid if it offers none.
func (c *Config) MetricsFor(node core.NodeName) netip.AddrPort {
	if n, _ := c.Node(node); n.Metrics.IsValid() {
		return n.Metrics
	}
	return c.Metrics
}

// Group returns the table of a group.
func (c *Config) Group(name core.GroupName) (Group, bool) {
	i := slices.IndexFunc(c.Groups, func(g Group) bool { return g.Name == name })
	if i < 0 {
		return Group{}, false
	}
	return c.Groups[i], true
}

// InterfaceFor returns the interface that carries a group's addresses on a node: the node's own choice for the group,
// else the node's choice for all groups, else the group's. It is empty when none of them names one.
func (c *Config) InterfaceFor(node core.NodeName, group core.GroupName) string {
	n, _ := c.Node(node)
	g, _ := c.Group(group)
	if name := n.Interfaces[g.table()]; name != "" {
		return name
	}
	if n.Interface != "" {
		return n.Interface
	}
	return g.Interface
}

// Self finds the node that this process is: by its name or, when the name is empty, by the addresses of the machine.
func (c *Config) Self(name string, localAddrs []netip.Addr) (core.NodeSpec, error) {
	if name != "" {
		return c.selfByName(name)
	}
	var found []core.NodeSpec
	for _, n := range c.Nodes {
		if slices.Contains(localAddrs, n.Address.Addr()) {
			found = append(found, n.NodeSpec)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return core.NodeSpec{}, Problems{{File: c.Path, Line: c.at["nodes"].line, Key: "[[node]] address", Text: fmt.Sprintf(
			"none of the nodes has an address of this machine (%s): correct an address, or name the node with --node NAME",
			joinAddrs(localAddrs))}}
	default:
		var names []string
		for _, n := range found {
			names = append(names, string(n.Name))
		}
		return core.NodeSpec{}, Problems{{File: c.Path, Line: c.at["nodes"].line, Key: "[[node]] address", Text: fmt.Sprintf(
			"the nodes %s all have an address of this machine: name the one to run with --node NAME", strings.Join(names, " and "))}}
	}
}

func (c *Config) selfByName(name string) (core.NodeSpec, error) {
	var names []string
	for _, n := range c.Nodes {
		if string(n.Name) == name {
			return n.NodeSpec, nil
		}
		names = append(names, string(n.Name))
	}
	text := fmt.Sprintf("there is no node %q: the file has %s", name, strings.Join(names, ", "))
	if near := nearest(name, names); near != "" {
		text += fmt.Sprintf("; did you mean %q?", near)
	}
	return core.NodeSpec{}, Problems{{File: c.Path, Line: c.at["nodes"].line, Key: "[[node]] name", Text: text}}
}

func joinAddrs(addrs []netip.Addr) string {
	if len(addrs) == 0 {
		return "it has none"
	}
	var out []string
	for _, a := range addrs {
		if !a.IsLoopback() && !a.IsLinkLocalUnicast() {
			out = append(out, a.String())
		}
	}
	if len(out) == 0 {
		return "it has only loopback and link-local ones"
	}
	return strings.Join(out, ", ")
}

// Dial is the server's address as the detector and the Actor take it: with "unix:" before the path of a socket.
func (m MySQL) Dial() string {
	if m.Network == "unix" {
		return "unix:" + m.Address
	}
	return m.Address
}

// Password reads the password file. One line end at the end of the file is not part of the password.
func (m MySQL) Password() (string, error) {
	if m.PasswordFile == "" {
		return "", nil
	}
	data, err := os.ReadFile(m.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("read the password of MySQL user %s: %w", m.User, err)
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r"), nil
}
