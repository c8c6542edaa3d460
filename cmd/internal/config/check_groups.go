package config

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/remora-ha/remora/core"
)

// Bounds on what one cluster carries. Reports list all groups of an owner in one datagram; the addresses of all groups are
// one entry of the Raft log.
const (
	maxGroups       = 64
	maxAddresses    = 1024 // of one group
	maxAllAddresses = 2048
)

const groupTable = "[[group]]"

func (c *checker) groups() {
	switch n := len(c.raw.Groups); {
	case n == 0:
		c.missingTable("group", "there are no groups: add a [[group]] table with the addresses that should follow the writer")
	case n > maxGroups:
		c.bad(c.raw.Groups[maxGroups].Header.At, groupTable, "there are %d groups: use at most %d", n, maxGroups)
	}
	names, addrs := map[string]pos{}, map[netip.Addr]place{}
	for i := range c.raw.Groups {
		raw := &c.raw.Groups[i]
		g := c.group(raw)
		if first, twice := names[raw.Name.val]; twice && raw.Name.val != "" {
			c.bad(raw.Name.at, groupTable+" name", "%q is the name of the group in line %d too: give each group its own", raw.Name.val, first.line)
		} else {
			names[raw.Name.val] = raw.Name.at
		}
		g.Addresses = c.vips(raw, addrs)
		for _, g := range expanded(g) {
			c.cfg.Groups, c.of = append(c.cfg.Groups, g), append(c.of, raw)
		}
	}
	if n := len(addrs); n > maxAllAddresses {
		c.bad(c.raw.Groups[len(c.raw.Groups)-1].Header.At, groupTable+" addresses", "all groups together have %d addresses: use at most %d", n, maxAllAddresses)
	}
	c.allNames()
	c.labels()
}

// expanded returns the groups that a table stands for: one, or of role reader one for each address.
func expanded(g Group) []Group {
	if g.Role != core.Reader {
		return []Group{g}
	}
	var gs []Group
	for _, a := range g.Addresses {
		one := g
		one.Name, one.Pool, one.Addresses = g.Name+"/"+core.GroupName(a.Addr().String()), g.Name, []netip.Prefix{a}
		gs = append(gs, one)
	}
	return gs
}

// namesRoom is how many bytes the names of all groups, and four for each, may take in a report: it is one datagram, and lists what
// a node holds and what it can not serve, each group in both lists at the worst, beside what it says of the server. A report
// that is too long would not be sent, and no lease renewed.
const namesRoom = 420

// allNames bounds the names of all groups. Each address of a reader group is a group of its own.
func (c *checker) allNames() {
	size := 0
	for i, g := range c.cfg.Groups {
		if size += len(g.Name) + 4; size <= namesRoom {
			continue
		}
		if slices.ContainsFunc(c.cfg.Groups, func(g Group) bool { return g.Pool != "" }) {
			c.bad(c.of[i].Header.At, groupTable+" addresses", "each address of a reader group is a group of its own, and with %q their names and those of the other groups are too long for a report: use fewer addresses (18 IPv4 ones or so) or shorter names",
				g.Name)
		} else {
			c.bad(c.of[i].Header.At, groupTable+" name", "with %q the names of all groups are too long for a report: use fewer groups (22 with names of 15 letters, 64 with two) or shorter names, or put addresses that may move together into one group",
				g.Name)
		}
		return
	}
}

func (c *checker) group(raw *rawGroup) Group {
	name := c.name(raw.Name, raw.Header, groupTable, "name", "a name for the group, like \"writer\"")
	c.interfaceName(raw.Interface, groupTable+" interface")
	c.cfg.at["group.interface."+name] = raw.Interface.at
	return Group{
		GroupSpec: core.GroupSpec{
			Name: core.GroupName(name), Role: c.role(raw), Policy: c.policy(raw),
			Interface: raw.Interface.val, Preempt: raw.Preempt.val, KeepUnwritable: c.keepUnwritable(raw),
			Promotion: c.promotion(raw), Reading: c.reading(raw),
		},
		FencePort: c.fencePort(raw), FenceAllow: c.fenceAllow(raw),
	}
}

func (c *checker) role(raw *rawGroup) core.Role {
	const key = groupTable + " role"
	if !c.required(raw.Role, raw.Header, groupTable, "role", "\"writer\" or \"reader\"") {
		return core.Writer
	}
	switch role := core.Role(raw.Role.val); role {
	case core.Writer, core.Reader:
		return role
	default:
		c.bad(raw.Role.at, key, "there is no role %q: use \"writer\" or \"reader\"", shorten(raw.Role.val))
	}
	return core.Writer
}

// policies explains the choice that a user has to make: there is no default, because each is wrong for somebody.
const policies = `choose who may serve the group:
    policy = "any"      any healthy server: all are primaries, the address decides which one is written to
    policy = "follow"   only a server with read_only=OFF: MHA, orchestrator, Group Replication or you promote
    policy = "promote"  Remora itself makes the successor the primary, and the others follow it`

func (c *checker) policy(raw *rawGroup) core.Policy {
	const key = groupTable + " policy"
	policy := core.Policy(raw.Policy.val)
	if isReader(raw) {
		if raw.Policy.set() {
			c.bad(raw.Policy.at, key, "is for role \"writer\": a reader group has none, its addresses go to replicas that are no further behind than max_lag; delete it")
		}
		return ""
	}
	switch {
	case raw.Policy.val == "":
		if !raw.Policy.set() {
			c.bad(raw.Header.At, key, "is missing and has no default; %s", policies)
		} else if c.isWellFormed(raw.Policy.at, key) {
			c.bad(raw.Policy.at, key, "is empty; %s", policies)
		}
	case policy != core.AnyHealthy && policy != core.Follow && policy != core.Promote:
		c.bad(raw.Policy.at, key, "there is no policy %q; %s", shorten(raw.Policy.val), policies)
	}
	return policy
}

// keptUnwritable is how long an owner of policy follow keeps the addresses with a read-only server, unless the file says another
// time: long enough for a change of the primary by hand or by a manager, short enough to be noticed.
const keptUnwritable = 5 * time.Second

// keepUnwritable is the limit of policy follow; 0s is one, too.
func (c *checker) keepUnwritable(raw *rawGroup) core.Millis {
	const key = groupTable + " keep_unwritable"
	s := raw.KeepUnwritable
	switch {
	case raw.Policy.val != string(core.Follow):
		if s.set() {
			c.warn(s.at, key, "has no effect without policy = \"follow\": delete it")
		}
		return 0
	case !s.set():
		return core.Millis(keptUnwritable.Milliseconds())
	case s.val < 0 || s.val > time.Hour || s.val%time.Millisecond != 0:
		c.bad(s.at, key, "is %v: write whole milliseconds up to 1h, or 0s to release the addresses at once", s.val)
		return 0
	}
	return core.Millis(s.val.Milliseconds())
}

const (
	labelKey = groupTable + " label"
	// longestLabel is what the kernel stores at most, IFNAMSIZ-1 bytes (IFA_LABEL, net/ipv4/devinet.c).
	longestLabel = 15
)

// labels checks the address labels. There is one for all groups: where the kernel has no mark for addresses, a daemon finds by it
// what an earlier one has left, of whatever group.
func (c *checker) labels() {
	var first text
	one := ""
	for i := range c.cfg.Groups {
		g, t := &c.cfg.Groups[i], c.of[i].Label
		if i > 0 && c.of[i] == c.of[i-1] {
			g.Label = c.cfg.Groups[i-1].Label // another address of the same table
			continue
		}
		g.Label = c.label(t, g.Name)
		switch {
		case g.Label == "":
		case one == "":
			first, one = t, g.Label
			c.labelFits(t, one)
		case g.Label != one:
			c.bad(t.at, labelKey, "is %q, and in line %d it is %q: a daemon has one label for all groups, write the same",
				shorten(t.val), first.at.line, shorten(first.val))
		}
	}
}

// label returns what the kernel is to show behind an interface and a colon. The interface may be written, too, as 'ip address'
// shows it: that of any node, since each puts its own in front.
func (c *checker) label(t text, group core.GroupName) string {
	before, label, both := strings.Cut(t.val, ":")
	if !both {
		before, label = "", t.val
	}
	carries := func(n Node) bool { return !n.Witness && c.cfg.InterfaceFor(n.Name, group) == before }
	switch {
	case t.val == "":
		return ""
	case label == "" || strings.ContainsAny(label, "/: \t\r\n\v\f\x00"):
		c.bad(t.at, labelKey, "%q is no address label: write what 'ip address' shall show behind the interface and ':', without '/', ':' and blanks, like \"vip\"",
			shorten(t.val))
		return ""
	case both && !slices.ContainsFunc(c.cfg.Nodes, carries):
		c.bad(t.at, labelKey, "%q begins with an interface that carries the group on no node: write %q, and each node puts its own interface in front",
			shorten(t.val), shorten(label))
		return ""
	}
	return label
}

// labelFits sees to it that the kernel takes the label on every node.
func (c *checker) labelFits(t text, label string) {
	for _, n := range c.cfg.Nodes {
		for _, g := range c.cfg.Groups {
			name := c.cfg.InterfaceFor(n.Name, g.Name)
			if n.Witness || len(name) > longestLabel { // which is no interface's name, and blamed for that
				continue
			}
			if whole := name + ":" + label; len(whole) > longestLabel {
				c.bad(t.at, labelKey, "addresses on node %s would have the label %q, and the kernel stores at most %d letters of it: choose a shorter one, or none",
					n.Name, shorten(whole), longestLabel)
				return
			}
		}
	}
}

// place is where an address was seen first.
type place struct {
	at    pos
	group string
}

func (c *checker) vips(raw *rawGroup, seen map[netip.Addr]place) []netip.Prefix {
	const key = groupTable + " addresses"
	switch n := len(raw.Addresses.items); {
	case raw.Addresses.at.line == 0:
		c.bad(raw.Header.At, key, "is missing: list the addresses that move together, like [\"10.77.0.100/32\"]")
	case n == 0 && c.isWellFormed(raw.Addresses.at, key):
		c.bad(raw.Addresses.at, key, "is empty: list the addresses that move together, like [\"10.77.0.100/32\"]")
	case n > maxAddresses:
		c.bad(raw.Addresses.at, key, "has %d addresses: use at most %d in one group", n, maxAddresses)
	}
	var out []netip.Prefix
	for _, t := range raw.Addresses.items {
		p, ok := c.vip(t, key)
		if !ok {
			continue
		}
		if first, twice := seen[p.Addr()]; twice {
			c.bad(t.at, key, "%s is in group %q already, line %d: an address belongs to one group only", p.Addr(), shorten(first.group), first.at.line)
			continue
		}
		seen[p.Addr()] = place{t.at, raw.Name.val}
		out = append(out, p)
	}
	return out
}

// parsePrefix reads an address with or without a prefix length; without one it is a host's.
func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a.WithZone(""), a.BitLen()), nil
	}
	return netip.ParsePrefix(s)
}

func (c *checker) vip(t text, key string) (netip.Prefix, bool) {
	p, err := parsePrefix(t.val)
	if err != nil {
		c.bad(t.at, key, "%q is not an IP address: write it like \"10.77.0.100/32\"", shorten(t.val))
		return p, false
	}
	a := p.Addr()
	wrong := ""
	switch {
	case a.Is4In6():
		wrong = "is an IPv4 address in IPv6 clothes: write it as IPv4"
	case strings.Contains(t.val, "%"):
		wrong = "has a zone: write the address without it and name the interface under interface"
	case a.IsUnspecified():
		wrong = "is the unspecified address, which nobody can own"
	case a.IsLoopback():
		wrong = "is a loopback address, which no client on the network can reach"
	case a.IsMulticast():
		wrong = "is a multicast address, which nobody can own alone"
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		wrong = "is the broadcast address"
	case a.Is6() && a.IsLinkLocalUnicast():
		wrong = "is a link-local address, which clients reach only with a zone: use a global or unique local one"
	case isNetworkAddress(p):
		wrong = "is the address of the whole network: write the address of one host in it"
	}
	if wrong != "" {
		c.bad(t.at, key, "%s %s", t.val, wrong)
		return p, false
	}
	if !p.IsSingleIP() {
		c.warn(t.at, key, "%s adds a route to its whole network on the owner, and as a second address of that network it goes when the first is deleted: write %s/%d unless you need that",
			p, a, a.BitLen())
	}
	return p, true
}

// isNetworkAddress reports whether all host bits are zero, where that means the network itself (not in RFC 3021 pairs).
func isNetworkAddress(p netip.Prefix) bool {
	return p.Bits() < p.Addr().BitLen()-1 && p.Masked().Addr() == p.Addr()
}
