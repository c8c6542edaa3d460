package config

import (
	"net/netip"
	"unicode/utf8"

	"github.com/remora-ha/remora/core"
)

// longestSecret is how many characters of a password MySQL and MariaDB keep for replication.
const longestSecret = 32

const replicationTable = "[replication]"

// replication checks the account by which the servers follow one another.
func (c *checker) replication() {
	raw := c.raw.Replication
	c.cfg.Replication = Replication{User: raw.User.val, PasswordFile: raw.PasswordFile.val, TLS: raw.TLS.val, CA: raw.CA.val,
		VerifyName: raw.VerifyName.val}
	c.cfg.at["replication"], c.cfg.at["replication.password_file"] = raw.Header.At, raw.PasswordFile.at
	if raw.Header.At.line == 0 {
		return
	}
	if c.required(raw.User, raw.Header, replicationTable, "user", "the account that servers replicate with, like \"repl\"") &&
		utf8.RuneCountInString(raw.User.val) > longestSecret {
		c.bad(raw.User.at, replicationTable+" user", "is longer than %d letters, which no server takes: choose a shorter one", longestSecret)
	}
	if c.required(raw.PasswordFile, raw.Header, replicationTable, "password_file", "the file that holds the account's password alone, like \"/etc/remora/replication.password\"") {
		c.absolute(raw.PasswordFile, replicationTable+" password_file")
	}
	c.absolute(raw.CA, replicationTable+" ca")
	if !raw.TLS.val {
		for _, k := range []struct {
			at  pos
			key string
		}{{raw.CA.at, "ca"}, {raw.VerifyName.at, "verify_name"}} {
			if k.at.line > 0 {
				c.bad(k.at, replicationTable+" "+k.key, "has no effect without tls = true: add that, or delete this")
			}
		}
	}
	if raw.VerifyName.val && raw.CA.val == "" && raw.TLS.val {
		c.bad(raw.VerifyName.at, replicationTable+" verify_name", "needs ca: without an authority no certificate proves anything")
	}
}

// peerServer is where the other nodes' servers reach the one of a node.
func (c *checker) peerServer(t text) netip.AddrPort {
	const key = nodeTable + " mysql"
	if t.val == "" {
		return netip.AddrPort{}
	}
	ap, err := netip.ParseAddrPort(t.val)
	a := ap.Addr().Unmap()
	switch {
	case err != nil:
		c.bad(t.at, key, "%q is not an IP address with a port: write where the other nodes' servers reach this one, like \"10.77.0.11:3306\"", shorten(t.val))
		return netip.AddrPort{}
	case ap.Port() == 0:
		c.bad(t.at, key, "%q has port 0: write the server's port, usually 3306", t.val)
	case a.IsUnspecified() || a.IsMulticast() || a.IsLoopback():
		c.bad(t.at, key, "%q is not reachable from other nodes: write the server's address in their network", t.val)
	}
	return netip.AddrPortFrom(a, ap.Port())
}

// promoters checks that a cluster which promotes can also let servers follow.
func (c *checker) promoters() {
	first := -1
	for i, g := range c.cfg.Groups {
		if g.Policy != core.Promote {
			continue
		}
		if first >= 0 {
			c.bad(c.of[i].Policy.at, groupTable+" policy", "\"promote\" is the policy of the group in line %d too: a server is the primary for one group only",
				c.of[first].Header.At.line)
		} else {
			first = i
		}
	}
	for i, g := range c.cfg.Groups {
		if g.Policy == core.Promote && c.raw.Replication.Header.At.line == 0 {
			c.bad(c.of[i].Policy.at, groupTable+" policy", "\"promote\" needs a [replication] table with user and password_file: the others are made to follow the new primary with that account")
			return
		}
	}
}
