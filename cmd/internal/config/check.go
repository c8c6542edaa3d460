package config

import (
	"errors"
	"io/fs"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/remora-ha/remora/core"
)

// checker turns the raw structs into a Config and reports everything that can not be meant.
type checker struct {
	*report
	raw *rawFile
	cfg *Config
	of  []*rawGroup // which table each group of cfg comes from
}

func check(raw *rawFile, r *report) *Config {
	c := &checker{report: r, raw: raw, cfg: &Config{Path: r.file, at: map[string]pos{}}}
	c.top()
	c.timing()
	c.process()
	c.cfg.MySQL = c.mysql()
	c.replication()
	c.tls()
	c.mha()
	c.nodes()
	c.groups()
	c.promoters()
	c.metrics()
	c.together()
	return c.cfg
}

func (c *checker) top() {
	raw := c.raw
	c.cfg.Cluster = c.name(raw.Cluster, raw.Header, "", "cluster", "a name for the cluster, like \"orders\"")
	c.cfg.Version = 1
	if raw.Version.set() {
		c.cfg.Version = uint64(max(raw.Version.val, 0))
		if raw.Version.val < 1 && c.isWellFormed(raw.Version.at, "version") {
			c.bad(raw.Version.at, "version", "is %d: count versions from 1 and raise the number with every change of nodes or groups",
				raw.Version.val)
		}
	}
	c.cfg.StateDir = c.path(raw.StateDir, "state_dir", DefaultStateDir)
	c.cfg.Socket = c.path(raw.Socket, "socket", DefaultSocket)
	const longest = 107 // sun_path of unix(7) without its final zero
	if len(c.cfg.Socket) > longest {
		c.bad(raw.Socket.at, "socket", "the path is %d bytes long, a socket's can have %d: choose a shorter one",
			len(c.cfg.Socket), longest)
	}
	c.cfg.at["state_dir"], c.cfg.at["socket"] = raw.StateDir.at, raw.Socket.at
}

func (c *checker) path(t text, key, standard string) string {
	if !t.set() {
		return standard
	}
	c.absolute(t, key)
	return t.val
}

func (c *checker) absolute(t text, key string) {
	if t.val != "" && !filepath.IsAbs(t.val) {
		c.bad(t.at, key, "%q is relative, and the daemon's working directory is not yours: write the path from /", shorten(t.val))
	} else if strings.ContainsRune(t.val, 0) {
		c.bad(t.at, key, "a path can not contain a zero byte")
	}
}

// required reports a key that is missing or empty; it returns whether there is a value.
func (c *checker) required(t text, head header, where, key, hint string) bool {
	if t.val != "" {
		return true
	}
	switch {
	case !t.set():
		c.bad(head.At, keyIn(where, key), "is missing: set it to %s", hint)
	case c.isWellFormed(t.at, keyIn(where, key)):
		c.bad(t.at, keyIn(where, key), "is empty: set it to %s", hint)
	}
	return false
}

// isWellFormed reports whether no problem was reported for a key in a line yet: a value of the wrong kind leaves an
// empty leaf behind, and need not be blamed for that as well.
func (c *checker) isWellFormed(at pos, key string) bool {
	for _, p := range c.problems {
		if p.Line == at.line && p.Key == key {
			return false
		}
	}
	return true
}

// missingTable reports that a table is not there at all, unless it is there in a form that was blamed already.
func (c *checker) missingTable(name, text string) {
	for _, p := range c.problems {
		if p.Key == name {
			return
		}
	}
	key := "[" + name + "]"
	if name == "node" || name == "group" {
		key = "[" + key + "]"
	}
	c.bad(c.raw.Header.At, key, "%s", text)
}

// validName is what names of clusters, nodes and groups may look like. Node names are DNS names in certificates and
// group names stand in logs, so they share one plain form.
var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?)*$`)

const longestName = 63

// ValidName reports what is wrong with the name of a cluster, node or group, or nothing.
func ValidName(name string) string {
	if _, err := netip.ParseAddr(name); err == nil {
		return "is an IP address, which certificates treat otherwise than a name: choose a word"
	}
	if len(name) > longestName {
		return "is longer than 63 letters: choose a shorter one"
	}
	if !validName.MatchString(name) {
		return "is no valid name: use lower-case letters, digits, '-', '_' and '.', beginning and ending with a letter or digit"
	}
	return ""
}

func (c *checker) name(t text, head header, where, key, hint string) string {
	if c.required(t, head, where, key, hint) {
		if problem := ValidName(t.val); problem != "" {
			c.bad(t.at, keyIn(where, key), "%q %s", shorten(t.val), problem)
		}
	}
	return t.val
}

func (c *checker) mysql() MySQL {
	raw := c.raw.MySQL
	m := MySQL{User: DefaultUser, PasswordFile: raw.PasswordFile.val}
	if raw.User.val != "" {
		m.User = raw.User.val
	}
	const where = "[mysql]"
	c.cfg.at["mysql.address"], c.cfg.at["mysql.password_file"] = raw.Address.at, raw.PasswordFile.at
	c.absolute(raw.PasswordFile, where+" password_file")
	if raw.Header.At.line == 0 {
		c.missingTable("mysql", "is missing: add the table with the address of each node's own server, like address = \"127.0.0.1:3306\"")
		return m
	}
	if c.required(raw.Address, raw.Header, where, "address", "each node's own server, like \"127.0.0.1:3306\"") {
		m.Network, m.Address = c.serverAddress(raw.Address, where+" address")
	}
	return m
}

// serverAddress checks the address of a MySQL server. Names are refused: a detector must not wait for a name server.
func (c *checker) serverAddress(t text, key string) (network, address string) {
	if path, ok := strings.CutPrefix(t.val, "unix:"); ok {
		if !filepath.IsAbs(path) {
			c.bad(t.at, key, "%q names no socket by its full path: write it like \"unix:/run/mysqld/mysqld.sock\"", shorten(t.val))
		}
		return "unix", path
	}
	ap, err := netip.ParseAddrPort(t.val)
	switch {
	case err == nil && ap.Port() == 0:
		c.bad(t.at, key, "%q has port 0: write the server's port, usually 3306", t.val)
	case err == nil && (ap.Addr().IsUnspecified() || ap.Addr().IsMulticast()):
		c.bad(t.at, key, "%q is nothing to connect to: write one address of the server, usually 127.0.0.1", t.val)
	case err == nil:
		return "tcp", netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()).String()
	case strings.HasPrefix(t.val, "/"):
		c.bad(t.at, key, "%q looks like a socket: write \"unix:%s\"", shorten(t.val), shorten(t.val))
	default:
		c.bad(t.at, key, "%q is not an IP address with a port: write it like \"127.0.0.1:3306\" (no host names: the daemon asks no name server) or \"unix:/run/mysqld/mysqld.sock\"",
			shorten(t.val))
	}
	return "tcp", ""
}

func (c *checker) tls() {
	raw := c.raw.TLS
	const where = "[tls]"
	c.cfg.TLS = TLS{CA: raw.CA.val, Cert: raw.Cert.val, Key: raw.Key.val}
	if raw.Header.At.line == 0 {
		c.missingTable("tls", "is missing: nodes speak to one another with certificates only; make them with 'remora pki init' and 'remora pki issue NODE' and name ca, cert and key here")
		return
	}
	for _, f := range []struct {
		t         text
		key, hint string
	}{
		{raw.CA, "ca", "the file of the certificate authority, like \"/etc/remora/ca.pem\""},
		{raw.Cert, "cert", "the file of the node's certificate, like \"/etc/remora/node.pem\""},
		{raw.Key, "key", "the file of the node's private key, like \"/etc/remora/node.key\""},
	} {
		c.required(f.t, raw.Header, where, f.key, f.hint)
		c.absolute(f.t, where+" "+f.key)
		c.cfg.at["tls."+f.key] = f.t.at
	}
}

// timing lays the [timing] table over the profile.
func (c *checker) timing() {
	raw := c.raw
	c.cfg.Profile = core.Profiles()[0]
	if raw.Profile.set() {
		c.cfg.Profile = raw.Profile.val
	}
	timing, err := core.ProfileTiming(c.cfg.Profile)
	if err != nil {
		if c.isWellFormed(raw.Profile.at, "profile") {
			c.bad(raw.Profile.at, "profile", "%s", withNearest(err.Error(), c.cfg.Profile, core.Profiles()))
		}
		return
	}
	c.cfg.timing = timing
	lines := c.override()
	if !c.timingIsWhole() {
		return // a value that could not be read makes relations look wrong that may not be
	}
	for _, p := range c.cfg.timing.Check() {
		at := raw.Timing.Header.At
		if line, ok := lines[p.Key]; ok {
			at = line
		}
		c.bad(at, "[timing] "+p.Key, "%s", strings.Replace(p.Text, p.Key+" is ", "is ", 1))
	}
}

// override sets the durations that the file sets and returns their places.
func (c *checker) override() map[string]pos {
	raw, t, lines := c.raw.Timing, &c.cfg.timing, map[string]pos{}
	for key, s := range map[string]struct {
		from span
		to   *time.Duration
	}{
		"heartbeat":      {raw.Heartbeat, &t.Heartbeat},
		"ttl":            {raw.TTL, &t.TTL},
		"unbind":         {raw.Unbind, &t.Unbind},
		"raft_heartbeat": {raw.RaftHeartbeat, &t.RaftHeartbeat},
		"raft_election":  {raw.RaftElection, &t.RaftElection},
		"probe":          {raw.Probe, &t.Probe},
		"probe_timeout":  {raw.ProbeTimeout, &t.ProbeTimeout},
		"cool_down":      {raw.CoolDown, &t.CoolDown},
	} {
		if s.from.set() {
			*s.to, lines[key] = s.from.val, s.from.at
		}
	}
	for key, n := range map[string]struct {
		from integer
		to   *int
	}{"fall": {raw.Fall, &t.Fall}, "rise": {raw.Rise, &t.Rise}} {
		if n.from.set() {
			*n.to, lines[key] = int(n.from.val), n.from.at
		}
	}
	return lines
}

func (c *checker) timingIsWhole() bool {
	for _, p := range c.problems {
		if strings.HasPrefix(p.Key, "[timing]") {
			return false
		}
	}
	return true
}

func withNearest(problem, word string, words []string) string {
	if near := nearest(word, words); near != "" {
		return problem + "; did you mean \"" + near + "\"?"
	}
	return problem
}

// cause strips the operation and the path from an error of package os, because the message names them already.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
