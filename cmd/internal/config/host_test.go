package config

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-ha/remora/cmd/internal/pki"
	"github.com/remora-ha/remora/core"
)

var hostNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// machine is a Host made of values. Its files have names without the leading slash.
type machine struct {
	interfaces []string
	files      fstest.MapFS
	user       uint32
	readOnly   string // a directory that can not be written
	caps       uint64
	listeners  []netip.Addr
	now        time.Time
}

func (m *machine) Interfaces() ([]string, error) { return m.interfaces, nil }
func (m *machine) ReadFile(name string) ([]byte, error) {
	return m.files.ReadFile(strings.TrimPrefix(name, "/"))
}
func (m *machine) Stat(name string) (fs.FileInfo, error) {
	if name == "/" {
		return m.files.Stat(".")
	}
	return m.files.Stat(strings.TrimPrefix(name, "/"))
}
func (m *machine) User() uint32 { return m.user }
func (m *machine) Writable(dir string) error {
	if dir == m.readOnly {
		return &fs.PathError{Op: "access", Path: dir, Err: fs.ErrPermission}
	}
	return nil
}
func (m *machine) Capabilities() (uint64, error)          { return m.caps, nil }
func (m *machine) Listeners(uint16) ([]netip.Addr, error) { return m.listeners, nil }
func (m *machine) Now() time.Time                         { return m.now }

// goodMachine fits node db1 of testdata/ok.toml.
func goodMachine(t *testing.T) *machine {
	t.Helper()
	ca, err := pki.NewCA("orders", hostNow)
	if err != nil {
		t.Fatal(err)
	}
	node, err := pki.Issue(ca, "db1", hostNow)
	if err != nil {
		t.Fatal(err)
	}
	return &machine{
		interfaces: []string{"lo", "eth0"},
		user:       990,
		caps:       1<<capNetAdmin | 1<<capNetRaw,
		listeners:  []netip.Addr{netip.IPv6Unspecified()},
		now:        hostNow,
		files: fstest.MapFS{
			"etc/remora/ca.pem":         {Data: ca.Cert, Mode: 0o644},
			"etc/remora/node.pem":       {Data: node.Cert, Mode: 0o644},
			"etc/remora/node.key":       {Data: node.Key, Mode: 0o600},
			"etc/remora/mysql.password": {Data: []byte("geheim\n"), Mode: 0o600},
			"var/lib":                   {Mode: fs.ModeDir | 0o755},
		},
	}
}

func TestHostMessages(t *testing.T) {
	const file = "remora.toml"
	for _, c := range []struct {
		name string
		node core.NodeName
		edit func(*machine)
		want []string
	}{
		{name: "good", edit: func(*machine) {}},
		{
			name: "interface is missing",
			edit: func(m *machine) { m.interfaces = []string{"lo", "eth1"} },
			want: []string{`remora.toml:36: [[group]] interface: node db1 has no interface "eth0": it has lo, eth1; name the right one, under [[node]] db1 if it differs from the other nodes'; did you mean "eth1"?`},
		},
		{
			name: "files are missing",
			edit: func(m *machine) {
				m.files = fstest.MapFS{"var/lib": m.files["var/lib"], "etc/remora/ca.pem": m.files["etc/remora/ca.pem"]}
			},
			want: []string{
				`remora.toml:7: [mysql] password_file: /etc/remora/mysql.password can not be read (file does not exist): put the password of MySQL user remora there, readable by the user that runs remora`,
				`remora.toml:11: [tls] cert: /etc/remora/node.pem can not be read (file does not exist): make it with 'remora pki issue db1' and copy it to this machine, readable by the user that runs remora`,
				`remora.toml:12: [tls] key: /etc/remora/node.key can not be read (file does not exist): make it with 'remora pki issue db1' and copy it to this machine, readable by the user that runs remora`,
			},
		},
		{
			name: "secrets are open",
			edit: func(m *machine) {
				m.files["etc/remora/node.key"].Mode, m.files["etc/remora/mysql.password"].Mode = 0o640, 0o644
			},
			want: []string{
				`remora.toml:7: [mysql] password_file: /etc/remora/mysql.password is open to everybody (mode 0644): run 'chmod 600 /etc/remora/mysql.password'`,
				`remora.toml:12: [tls] key: /etc/remora/node.key is open to others than its owner (mode 0640): run 'chmod 600 /etc/remora/node.key'`,
			},
		},
		{
			name: "capabilities are missing",
			edit: func(m *machine) { m.caps = 1 << capNetAdmin },
			want: []string{`remora.toml: capabilities: this process lacks CAP_NET_RAW, needed to send and watch ARP and neighbour discovery: run as root, or with AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW in the systemd unit`},
		},
		{
			name: "state_dir can not be made",
			edit: func(m *machine) { m.readOnly = "/var/lib" },
			want: []string{`remora.toml: state_dir: /var/lib/remora can not be used, because /var/lib is not writable (permission denied): give it to the user that runs remora, or name another directory`},
		},
		{
			name: "state_dir is a file",
			edit: func(m *machine) { m.files["var/lib/remora"] = &fstest.MapFile{} },
			want: []string{`remora.toml: state_dir: /var/lib/remora is no directory: name one for Raft's log and snapshots`},
		},
		{
			name: "server listens on loopback only",
			edit: func(m *machine) { m.listeners = []netip.Addr{netip.MustParseAddr("127.0.0.1")} },
			want: []string{`remora.toml:5: [mysql] address: the server on port 3306 listens on 127.0.0.1 only, so clients of group "writer" could not reach it at 10.77.0.100: set bind_address = * in my.cnf and restart it`},
		},
		{
			name: "server has the IPv4 wildcard only",
			edit: func(m *machine) { m.listeners = []netip.Addr{netip.IPv4Unspecified()} },
			want: []string{`remora.toml:5: [mysql] address: the server on port 3306 listens on 0.0.0.0 only, so clients of group "writer" could not reach it at fd00:77::100: set bind_address = * in my.cnf and restart it`},
		},
		{name: "server does not run", edit: func(m *machine) { m.listeners = nil }},
		{
			name: "certificate is over",
			edit: func(m *machine) { m.now = hostNow.Add(pki.NodeValidity + 24*time.Hour) },
			want: []string{`remora.toml:11: [tls] cert: /etc/remora/node.pem ended on 2028-02-29: make a new one with 'remora pki issue db1'`},
		},
		{
			name: "certificate ends soon",
			edit: func(m *machine) { m.now = hostNow.Add(pki.NodeValidity - 20*24*time.Hour) },
			want: []string{`remora.toml:11: warning: [tls] cert: /etc/remora/node.pem ends on 2028-02-29: make a new one with 'remora pki issue db1' before, where the old one was moved away`},
		},
		{
			name: "certificate of another node", node: "mgr",
			edit: func(*machine) {},
			want: []string{`remora.toml:11: [tls] cert: /etc/remora/node.pem is for db1 and not for node mgr: give each node its own, made with 'remora pki issue mgr'`},
		},
		{
			name: "own interface is missing", node: "db2",
			edit: func(m *machine) {
				m.interfaces = []string{"lo", "eth0", "bond1"}
				delete(m.files, "etc/remora/ca.pem")
			},
			want: []string{
				`remora.toml:10: [tls] ca: /etc/remora/ca.pem can not be read (file does not exist): make it with 'remora pki init' and copy it to this machine, readable by the user that runs remora`,
				`remora.toml:22: [[node]] interface: node db2 has no interface "bond0": it has lo, eth0, bond1; name the right one, under [[node]] db2 if it differs from the other nodes'; did you mean "bond1"?`,
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := mustParse(t, okFile(t))
			m := goodMachine(t)
			c.edit(m)
			if c.node == "" {
				c.node = "db1"
			}
			var got []string
			for _, p := range CheckHost(cfg, c.node, m) {
				got = append(got, p.String())
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("problems on %s (-want +got):\n%s", file, diff)
			}
		})
	}
}

// TestWitnessNeedsLess holds that a witness is not asked for what only an owner needs.
func TestWitnessNeedsLess(t *testing.T) {
	m := goodMachine(t)
	m.interfaces, m.caps, m.listeners = []string{"lo"}, 0, []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	delete(m.files, "etc/remora/mysql.password")
	for _, p := range CheckHost(mustParse(t, okFile(t)), "mgr", m) {
		if !strings.HasPrefix(p.Key, "[tls]") {
			t.Errorf("a witness is asked for more than it needs: %s", p)
		}
	}
}

func TestThisHost(t *testing.T) {
	h := ThisHost()
	if names, err := h.Interfaces(); err != nil || len(names) == 0 {
		t.Errorf("interfaces %v, %v", names, err)
	}
	if caps, err := h.Capabilities(); err != nil || os.Geteuid() == 0 && caps&(1<<capNetAdmin) == 0 {
		t.Errorf("capabilities %x, %v", caps, err)
	}
	dir := t.TempDir()
	if err := h.Writable(dir); err != nil {
		t.Errorf("a new directory: %v", err)
	}
	if err := h.Writable(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing directory: %v", err)
	}
}

func TestListenersOfTheKernelsTable(t *testing.T) {
	// Two listening sockets on port 3306 (0CEA), one on another port, one connection to 3306, one damaged line.
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0CEA 00000000:0000 0A 00000000:00000000 00:00000000 00000000   104        0 1 1 0 100 0 0 10 0
   1: 00000000000000000000000000000000:0CEA 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000
   2: 0100007F:0019 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   3: 0B004D0A:0CEA 0C004D0A:A1B2 01 00000000:00000000 00:00000000 00000000   104        0 1 1 0 100 0 0 10 0
   4: zz:0CEA 00000000:0000 0A
`
	want := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Unspecified()}
	if diff := cmp.Diff(want, listeners([]byte(table), 3306), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("listeners (-want +got):\n%s", diff)
	}
}

func FuzzListeners(f *testing.F) {
	f.Add("   0: 0100007F:0CEA 00000000:0000 0A 00000000:00000000\n", uint16(3306))
	f.Fuzz(func(t *testing.T, table string, port uint16) {
		for _, a := range listeners([]byte(table), port) {
			if !a.IsValid() {
				t.Errorf("an invalid address from %q", table)
			}
		}
	})
}
