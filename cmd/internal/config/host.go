package config

import (
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/remora-ha/remora/cmd/internal/pki"
	"github.com/remora-ha/remora/core"
)

// Host is the machine as CheckHost sees it. It is only read.
type Host interface {
	// Interfaces returns the names of all network interfaces.
	Interfaces() ([]string, error)
	ReadFile(name string) ([]byte, error)
	Stat(name string) (fs.FileInfo, error)
	// User returns the effective user of this process.
	User() uint32
	// Writable returns nil if this process may make files in a directory that exists.
	Writable(dir string) error
	// Capabilities returns the effective capabilities of this process, capability n as bit n.
	Capabilities() (uint64, error)
	// Listeners returns the addresses on which somebody listens for TCP connections to a port. The unspecified
	// address is the wildcard.
	Listeners(port uint16) ([]netip.Addr, error)
	Now() time.Time
}

// The capabilities that the daemon needs, numbered as in linux/capability.h.
const (
	capNetAdmin = 12 // binding addresses
	capNetRaw   = 13 // ARP and neighbour discovery on packet sockets
)

// CheckHost returns what on a machine keeps node self of a configuration from working there.
func CheckHost(cfg *Config, self core.NodeName, host Host) Problems {
	node, ok := cfg.Node(self)
	if !ok {
		return Problems{{File: cfg.Path, Text: fmt.Sprintf("there is no node %q in the file", self)}}
	}
	h := &hostChecker{report: &report{file: cfg.Path}, cfg: cfg, node: node, host: host}
	h.stateDir()
	h.certificates()
	if !node.Witness {
		h.interfaces()
		h.capabilities()
		h.password()
		h.listeners()
	}
	h.owner()
	return h.problems.sorted()
}

type hostChecker struct {
	*report
	cfg  *Config
	node Node
	host Host
}

func (h *hostChecker) at(key string) pos { return h.cfg.at[key] }

func (h *hostChecker) interfaces() {
	present, err := h.host.Interfaces()
	if err != nil {
		h.bad(pos{}, groupTable+" interface", "can not list the network interfaces: %v", err)
		return
	}
	var told []string
	for _, g := range h.cfg.Groups {
		name := h.cfg.InterfaceFor(h.node.Name, g.Name)
		if slices.Contains(present, name) || slices.Contains(told, name) {
			continue
		}
		told = append(told, name)
		text := fmt.Sprintf("node %s has no interface %q: it has %s", h.node.Name, name, strings.Join(present, ", "))
		text += fmt.Sprintf("; name the right one, under [[node]] %s if it differs from the other nodes'", h.node.Name)
		at, key := h.at("group.interface."+string(g.table())), groupTable+" interface"
		if h.node.Interfaces[g.table()] != "" {
			at, key = h.at("node.interfaces."+string(h.node.Name)), nodeTable+" interfaces"
		} else if h.node.Interface != "" {
			at, key = h.at("node.interface."+string(h.node.Name)), nodeTable+" interface"
		}
		h.bad(at, key, "%s", withNearest(text, name, present))
	}
}

func (h *hostChecker) capabilities() {
	have, err := h.host.Capabilities()
	if err != nil {
		h.bad(pos{}, "capabilities", "can not be read: %v", err)
		return
	}
	for _, need := range []struct {
		bit       int
		name, why string
	}{
		{capNetAdmin, "CAP_NET_ADMIN", "bind and unbind addresses"},
		{capNetRaw, "CAP_NET_RAW", "send and watch ARP and neighbour discovery"},
	} {
		if have&(1<<need.bit) == 0 {
			h.bad(pos{}, "capabilities", "this process lacks %s, needed to %s: run as root, or with AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW in the systemd unit",
				need.name, need.why)
		}
	}
}

// stateDir asks whether the directory can be written or made, without making it.
func (h *hostChecker) stateDir() {
	dir := h.cfg.StateDir
	fi, err := h.host.Stat(dir)
	if err == nil && !fi.IsDir() {
		h.bad(h.at("state_dir"), "state_dir", "%s is no directory: name one for Raft's log and snapshots", dir)
		return
	}
	for err != nil && dir != "/" {
		dir = filepath.Dir(dir)
		_, err = h.host.Stat(dir)
	}
	if err := h.host.Writable(dir); err != nil {
		h.bad(h.at("state_dir"), "state_dir", "%s can not be used, because %s is not writable (%v): give it to the user that runs remora, or name another directory",
			h.cfg.StateDir, dir, cause(err))
	}
}

// owner warns of files that root can read and that user can not to whom the state directory belongs, as whom the daemon runs
// then.
func (h *hostChecker) owner() {
	fi, err := h.host.Stat(h.cfg.StateDir)
	if err != nil || h.host.User() != 0 {
		return
	}
	user, group, known := ownerOf(fi)
	if !known || user == 0 {
		return
	}
	files := []struct{ key, file string }{{"tls.ca", h.cfg.TLS.CA}, {"tls.cert", h.cfg.TLS.Cert}, {"tls.key", h.cfg.TLS.Key}}
	if !h.node.Witness {
		files = append(files, []struct{ key, file string }{{"mysql.password_file", h.node.MySQL.PasswordFile},
			{"replication.password_file", h.cfg.Replication.PasswordFile}}...)
	}
	for _, f := range files {
		if fi, err := h.host.Stat(f.file); f.file != "" && err == nil && closedTo(fi, user, group) {
			table, name, _ := strings.Cut(f.key, ".")
			h.warn(h.at(f.key), "["+table+"] "+name, "%s can not be read by user %d, to whom %s belongs: if the daemon runs as that user, run 'chown %d %s'",
				f.file, user, h.cfg.StateDir, user, f.file)
		}
	}
}

// closedTo reports whether a user of a group can certainly not read a file. What other groups the user is in is not known.
func closedTo(fi fs.FileInfo, user, group uint32) bool {
	owner, of, known := ownerOf(fi)
	mode := fi.Mode().Perm()
	switch {
	case !known:
		return false
	case owner == user:
		return mode&0o400 == 0
	case of == group:
		return mode&0o040 == 0
	case of == 0: // nobody but root is in this one
		return mode&0o004 == 0
	}
	return mode&0o044 == 0
}

func (h *hostChecker) password() {
	h.secret(h.node.MySQL.PasswordFile, "mysql.password_file", "[mysql] password_file", "MySQL user "+h.node.MySQL.User)
	if !h.node.Witness {
		h.secret(h.cfg.Replication.PasswordFile, "replication.password_file", "[replication] password_file", "replication user "+h.cfg.Replication.User)
	}
}

// secret checks a file with a password; none is right for an account without one.
func (h *hostChecker) secret(file, place, key, account string) {
	if file == "" {
		return
	}
	at := h.at(place)
	fi, err := h.host.Stat(file)
	if err == nil {
		_, err = h.host.ReadFile(file)
	}
	switch {
	case err != nil:
		h.bad(at, key, "%s can not be read (%v): put the password of %s there, readable by the user that runs remora", file, cause(err), account)
	case fi.Mode().Perm()&0o007 != 0:
		h.bad(at, key, "%s is open to everybody (mode %04o): run 'chmod 600 %s'", file, fi.Mode().Perm(), file)
	}
}

// listeners compares where the server listens with the addresses that it is to be reached at. A server that does not
// run now is no problem of the configuration.
func (h *hostChecker) listeners() {
	if h.node.MySQL.Network != "tcp" {
		return
	}
	ap, err := netip.ParseAddrPort(h.node.MySQL.Address)
	if err != nil {
		return
	}
	on, err := h.host.Listeners(ap.Port())
	if err != nil || len(on) == 0 {
		return
	}
	for _, g := range h.cfg.Groups {
		for _, vip := range g.Addresses {
			if !covers(on, vip.Addr()) {
				h.bad(h.at("mysql.address"), "[mysql] address", "the server on port %d listens on %s only, so clients of group %q could not reach it at %s: set bind_address = * in my.cnf and restart it",
					ap.Port(), joinAll(on), g.Name, vip.Addr())
				return
			}
		}
	}
}

// covers reports whether a server that listens on some addresses can be reached at another. The IPv6 wildcard takes
// IPv4 connections too, unless the server forbids it, which the kernel's tables do not show.
func covers(listeners []netip.Addr, vip netip.Addr) bool {
	for _, l := range listeners {
		if l == vip || l.IsUnspecified() && (l.Is6() || vip.Is4()) {
			return true
		}
	}
	return false
}

func joinAll(addrs []netip.Addr) string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return strings.Join(out, ", ")
}

func (h *hostChecker) certificates() {
	t := h.cfg.TLS
	ca, okCA := h.pem("ca", t.CA)
	cert, okCert := h.pem("cert", t.Cert)
	key, okKey := h.pem("key", t.Key)
	if fi, err := h.host.Stat(t.Key); err == nil && fi.Mode().Perm()&0o077 != 0 {
		h.bad(h.at("tls.key"), "[tls] key", "%s is open to others than its owner (mode %04o): run 'chmod 600 %s'", t.Key, fi.Mode().Perm(), t.Key)
	}
	if !okCA || !okCert || !okKey {
		return
	}
	names := map[pki.Part]string{pki.CA: "ca", pki.Cert: "cert", pki.Key: "key"}
	files := map[pki.Part]string{pki.CA: t.CA, pki.Cert: t.Cert, pki.Key: t.Key}
	faults, ends := pki.Check(ca, cert, key, string(h.node.Name), h.cfg.Cluster, h.host.Now())
	for _, f := range faults {
		h.bad(h.at("tls."+names[f.Part]), "[tls] "+names[f.Part], "%s %s", files[f.Part], f.Text)
	}
	if left := ends.Sub(h.host.Now()); len(faults) == 0 && left < pki.EndsSoon {
		h.warn(h.at("tls.cert"), "[tls] cert", "%s ends on %s: make a new one with 'remora pki issue %s' before, where the old one was moved away",
			t.Cert, ends.UTC().Format(time.DateOnly), h.node.Name)
	}
}

func (h *hostChecker) pem(key, file string) ([]byte, bool) {
	data, err := h.host.ReadFile(file)
	if err != nil {
		command := "remora pki issue " + string(h.node.Name)
		if key == "ca" {
			command = "remora pki init"
		}
		h.bad(h.at("tls."+key), "[tls] "+key, "%s can not be read (%v): make it with '%s' and copy it to this machine, readable by the user that runs remora",
			file, cause(err), command)
	}
	return data, err == nil
}
