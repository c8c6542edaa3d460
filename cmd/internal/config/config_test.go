package config

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/remora-ha/remora/core"
)

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	cfg, err := Parse(strings.NewReader(text), "remora.toml")
	if err != nil {
		t.Fatalf("parse: %v", err)
	}
	return cfg
}

func okFile(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("testdata/ok.toml")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestCoreConfig(t *testing.T) {
	cfg := mustParse(t, okFile(t))
	want := core.Config{
		Version: 1, Cluster: "orders", TTL: 300,
		Nodes: []core.NodeSpec{
			{Name: "db1", Address: netip.MustParseAddrPort("10.77.0.11:7400"), Priority: 10},
			{Name: "db2", Address: netip.MustParseAddrPort("[fd00:77::12]:7400")},
			{Name: "mgr", Address: netip.MustParseAddrPort("10.77.0.20:7400"), Witness: true},
		},
		Groups: []core.GroupSpec{
			{Name: "writer", Role: core.Writer, Policy: core.Follow, Interface: "eth0", KeepUnwritable: 1500, Addresses: []netip.Prefix{
				netip.MustParsePrefix("10.77.0.100/32"), netip.MustParsePrefix("fd00:77::100/128")}},
			{Name: "other", Role: core.Writer, Policy: core.AnyHealthy, Interface: "eth0", Preempt: true, Addresses: []netip.Prefix{
				netip.MustParsePrefix("10.77.0.101/32")}},
		},
	}
	if diff := cmp.Diff(want, cfg.Core(), cmpopts.EquateComparable(netip.AddrPort{}, netip.Prefix{})); diff != "" {
		t.Errorf("core config (-want +got):\n%s", diff)
	}
}

func TestHowManyAddressesThereMayBe(t *testing.T) {
	for _, tt := range []struct {
		groups []int
		want   string // of the message, if it is refused
	}{
		{[]int{1024}, ""},
		{[]int{1024, 1000}, ""},
		{[]int{1025}, "has 1025 addresses: use at most 1024 in one group"},
		{[]int{1000, 1000, 1000}, "all groups together have 3003 addresses: use at most 2048"},
	} {
		var b strings.Builder
		b.WriteString(okFile(t)) // has three addresses
		for i, n := range tt.groups {
			fmt.Fprintf(&b, "\n[[group]]\nname = \"crowd%d\"\nrole = \"writer\"\npolicy = \"any\"\ninterface = \"eth0\"\naddresses = [", i)
			for k := range n {
				fmt.Fprintf(&b, "%q, ", netip.AddrFrom4([4]byte{10, 80 + byte(i), byte(k >> 8), byte(k)}))
			}
			b.WriteString("]\n")
		}
		_, err := Parse(strings.NewReader(b.String()), "remora.toml")
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%d addresses: %.200v, want %q", tt.groups, err, tt.want)
		}
	}
}

// The names of all groups have to fit into a report, twice, with readers or without.
func TestHowLongTheNamesOfGroupsMayBe(t *testing.T) {
	for _, tt := range []struct {
		groups, letters int
		want            string // of the message, if it is refused
	}{
		{21, 15, ""}, // and two of the file
		{22, 15, "with \"group-31-abcdef\" the names of all groups are too long for a report"},
		{62, 2, ""},
	} {
		var b strings.Builder
		b.WriteString(okFile(t))
		for i := range tt.groups {
			name := fmt.Sprintf("group-%d-abcdefgh", i+10)[:tt.letters]
			if tt.letters == 2 {
				name = string([]byte{'a' + byte(i/26), 'a' + byte(i%26)})
			}
			fmt.Fprintf(&b, "\n[[group]]\nname = %q\nrole = \"writer\"\npolicy = \"any\"\ninterface = \"eth0\"\naddresses = [\"10.80.0.%d\"]\n", name, i+1)
		}
		_, err := Parse(strings.NewReader(b.String()), "remora.toml")
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%d groups with names of %d letters: %.300v, want %q", tt.groups, tt.letters, err, tt.want)
		}
	}
}

// A reader group is a group of its own for each address; nodes name their interfaces by the table.
func TestReaderGroupsExpand(t *testing.T) {
	cfg := mustParse(t, strings.Replace(okFile(t), "interfaces = { other = \"bond1\" }", "interfaces = { readers = \"bond2\" }", 1)+`
[[group]]
name = "readers"
role = "reader"
addresses = ["10.77.0.111", "fd00:77::112"]
interface = "eth0"
max_lag = "5s"
allow_primary = true
balance_after = "1m"
`)
	reading := core.Reading{MaxLag: 5000, AllowPrimary: true, BalanceAfter: 60000}
	want := []core.GroupSpec{
		{Name: "readers/10.77.0.111", Role: core.Reader, Pool: "readers", Reading: reading, Interface: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("10.77.0.111/32")}},
		{Name: "readers/fd00:77::112", Role: core.Reader, Pool: "readers", Reading: reading, Interface: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("fd00:77::112/128")}},
	}
	if diff := cmp.Diff(want, cfg.Core().Groups[2:], cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
	if got := cfg.InterfaceFor("db2", "readers/10.77.0.111"); got != "bond2" {
		t.Errorf("db2 carries a reader address on %s", got)
	}
}

// A label may be written with the interface of any node, as 'ip address' shows it there; all nodes have what comes behind it.
func TestLabelWithAndWithoutInterface(t *testing.T) {
	const line = "label     = \"eth0:vip\"\n"
	for _, label := range []string{"vip", "eth0:vip", "bond0:vip"} {
		cfg := mustParse(t, strings.Replace(okFile(t), line, fmt.Sprintf("label = %q\n", label), 1))
		if g, _ := cfg.Group("writer"); g.Label != "vip" {
			t.Errorf("with %q: %q", label, g.Label)
		}
	}
}

func TestDefaults(t *testing.T) {
	cfg := mustParse(t, okFile(t))
	if cfg.StateDir != DefaultStateDir || cfg.Socket != DefaultSocket || cfg.Profile != "lan" {
		t.Errorf("got state_dir %s, socket %s, profile %s", cfg.StateDir, cfg.Socket, cfg.Profile)
	}
	lan, err := core.ProfileTiming("lan")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Timing() != lan {
		t.Errorf("timing is %+v, want that of lan", cfg.Timing())
	}
}

// An operator who says nothing of keep_unwritable has the limit that the example file names; "0s" is a limit, too.
func TestKeepUnwritable(t *testing.T) {
	const line = "keep_unwritable = \"1500ms\"\n"
	for text, want := range map[string]core.Millis{"": 5000, "keep_unwritable = \"0s\"\n": 0, line: 1500} {
		cfg := mustParse(t, strings.Replace(okFile(t), line, text, 1))
		if g, _ := cfg.Group("writer"); g.KeepUnwritable != want {
			t.Errorf("with %q: %v, want %v", text, g.KeepUnwritable.Duration(), want.Duration())
		}
		if g, _ := cfg.Group("other"); g.KeepUnwritable != 0 {
			t.Errorf("policy any has a limit of %v", g.KeepUnwritable.Duration())
		}
	}
}

func TestEveryTimingKeyOverrides(t *testing.T) {
	cfg := mustParse(t, okFile(t)+`
[timing]
heartbeat = "1s"
ttl = "10s"
unbind = "70ms"
raft_heartbeat = "600ms"
raft_election = "700ms"
probe = "800ms"
probe_timeout = "900ms"
fall = 0x4
rise = 5
cool_down = "1m"
`)
	const ms = time.Millisecond
	want := core.Timing{Heartbeat: 1000 * ms, TTL: 10 * time.Second, Unbind: 70 * ms, RaftHeartbeat: 600 * ms,
		RaftElection: 700 * ms, Probe: 800 * ms, ProbeTimeout: 900 * ms, Fall: 4, Rise: 5, CoolDown: time.Minute}
	if diff := cmp.Diff(want, cfg.Timing()); diff != "" {
		t.Errorf("timing (-want +got):\n%s", diff)
	}
}

func TestNodeOverrides(t *testing.T) {
	cfg := mustParse(t, okFile(t))
	for _, c := range []struct {
		node  core.NodeName
		group core.GroupName
		want  string
	}{{"db1", "writer", "eth0"}, {"db2", "writer", "bond0"}, {"db2", "other", "bond1"}} {
		if got := cfg.InterfaceFor(c.node, c.group); got != c.want {
			t.Errorf("%s on %s uses %s, want %s", c.group, c.node, got, c.want)
		}
	}
	db1, _ := cfg.Node("db1")
	db2, _ := cfg.Node("db2")
	if got := db1.MySQL.Network + ":" + db1.MySQL.Address; got != "tcp:127.0.0.1:3306" {
		t.Errorf("db1's server is %s", got)
	}
	if got := db2.MySQL.Network + ":" + db2.MySQL.Address; got != "unix:/run/mysqld/mysqld.sock" {
		t.Errorf("db2's server is %s", got)
	}
	if db2.MySQL.PasswordFile == "" || db2.MySQL.User != "remora" {
		t.Errorf("db2 lost the account: %+v", db2.MySQL)
	}
}

func TestSelf(t *testing.T) {
	cfg := mustParse(t, okFile(t))
	addrs := func(list ...string) (out []netip.Addr) {
		for _, a := range list {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
	for _, c := range []struct {
		name  string
		local []netip.Addr
		want  core.NodeName
		err   string
	}{
		{name: "db2", want: "db2"},
		{local: addrs("127.0.0.1", "10.77.0.20"), want: "mgr"},
		{local: addrs("fd00:77::12"), want: "db2"},
		{name: "db3", err: `remora.toml:14: [[node]] name: there is no node "db3": the file has db1, db2, mgr; did you mean "db1"?`},
		{local: addrs("127.0.0.1", "192.0.2.1", "fe80::1"), err: `remora.toml:14: [[node]] address: none of the nodes has an address of this machine (192.0.2.1): correct an address, or name the node with --node NAME`},
		{local: addrs("127.0.0.1"), err: `remora.toml:14: [[node]] address: none of the nodes has an address of this machine (it has only loopback and link-local ones): correct an address, or name the node with --node NAME`},
		{local: addrs("10.77.0.11", "10.77.0.20"), err: `remora.toml:14: [[node]] address: the nodes db1 and mgr all have an address of this machine: name the one to run with --node NAME`},
	} {
		got, err := cfg.Self(c.name, c.local)
		if got.Name != c.want || (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
			t.Errorf("Self(%q, %v) = %q, %v; want %q, %s", c.name, c.local, got.Name, err, c.want, c.err)
		}
	}
}

func TestReplicationAccountAndPeersAddress(t *testing.T) {
	file := okFile(t) + `
[replication]
user          = "repl"
password_file = "/etc/remora/replication.password"
tls           = true
ca            = "/etc/mysql/ca.pem"
verify_name   = true

[[node]]
name    = "db3"
address = "10.77.0.13:7400"
mysql   = "10.78.0.13:3307"
`
	cfg := mustParse(t, file)
	want := Replication{User: "repl", PasswordFile: "/etc/remora/replication.password", TLS: true, CA: "/etc/mysql/ca.pem", VerifyName: true}
	if cfg.Replication != want {
		t.Errorf("replication is %+v, want %+v", cfg.Replication, want)
	}
	var got []string
	for _, n := range cfg.Core().Nodes {
		got = append(got, n.Server().String())
	}
	if want := []string{"10.77.0.11:3306", "[fd00:77::12]:3306", "10.77.0.20:3306", "10.78.0.13:3307"}; !slices.Equal(got, want) {
		t.Errorf("servers are at %v, want %v", got, want)
	}
}

// TestExampleIsComplete sees to it that the reference file names every key that the code knows, and no other.
func TestExampleIsComplete(t *testing.T) {
	var got []string
	where := ""
	line := regexp.MustCompile(`^#?(?:(\[+\w+\]+)|(\w+) *= .*)$`)
	for text := range strings.Lines(Example()) {
		m := line.FindStringSubmatch(strings.TrimRight(text, "\n"))
		switch {
		case m == nil:
		case m[1] != "":
			where = m[1]
		default:
			if key := keyIn(where, m[2]); !slices.Contains(got, key) {
				got = append(got, key)
			}
		}
	}
	want := Keys()
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("keys of the example (-in the code +in the example):\n%s", diff)
	}
}

func TestExampleParses(t *testing.T) {
	if w := mustParse(t, Example()).Warnings; len(w) > 0 {
		t.Errorf("the example has warnings:\n%v", w)
	}
	// With all defaults and examples switched on it must parse too, and mean the same where it shows defaults.
	all := regexp.MustCompile(`(?m)^#(\w+ *= |\[+\w+\]+$)`).ReplaceAllString(Example(), "$1")
	cfg := mustParse(t, all)
	lan, _ := core.ProfileTiming("lan")
	if diff := cmp.Diff(lan, cfg.Timing()); diff != "" {
		t.Errorf("the example shows other durations than lan's (-lan +example):\n%s", diff)
	}
	if cfg.StateDir != DefaultStateDir || cfg.Socket != DefaultSocket || cfg.MySQL.User != DefaultUser {
		t.Error("the example shows other defaults than the code's")
	}
}

// TestExampleIsDeployed keeps the file that packages install the same as the one the binary prints.
func TestExampleIsDeployed(t *testing.T) {
	data, err := os.ReadFile("../../../deploy/remora.toml")
	if err != nil {
		t.Fatal(err)
	}
	if string(data) != Example() {
		t.Error("deploy/remora.toml differs: run 'remora config example > deploy/remora.toml'")
	}
}

func TestLoadOfAMissingFile(t *testing.T) {
	_, err := Load("/nonexistent/remora.toml")
	want := "/nonexistent/remora.toml: can not be read (no such file or directory): name the configuration with --config, or write one with 'remora config example'"
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

func TestDial(t *testing.T) {
	for _, c := range []struct {
		m    MySQL
		want string
	}{{MySQL{Network: "tcp", Address: "127.0.0.1:3306"}, "127.0.0.1:3306"}, {MySQL{Network: "unix", Address: "/run/mysqld.sock"}, "unix:/run/mysqld.sock"}} {
		if got := c.m.Dial(); got != c.want {
			t.Errorf("%+v is dialled at %q, want %q", c.m, got, c.want)
		}
	}
}

func TestPassword(t *testing.T) {
	file := t.TempDir() + "/password"
	for content, want := range map[string]string{"geheim\n": "geheim", "geheim": "geheim", "a b\r\n": "a b", "x\n\n": "x\n"} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := MySQL{User: "remora", PasswordFile: file}.Password()
		if err != nil || got != want {
			t.Errorf("the file %q gives %q, %v; want %q", content, got, err, want)
		}
	}
}

func TestNearest(t *testing.T) {
	words := []string{"heartbeat", "ttl", "tls", "policy", "interface", "interfaces"}
	for word, want := range map[string]string{
		"hartbeat": "heartbeat", "tlt": "ttl", "policies": "policy", "interace": "interface", "x": "", "raft": "", "Policy": "policy",
	} {
		if got := nearest(word, words); got != want {
			t.Errorf("nearest(%q) = %q, want %q", word, got, want)
		}
	}
}

// FuzzParse holds that no file makes Parse panic, that what is refused names a reason, and that what is accepted keeps
// the rules that everything else relies on.
func FuzzParse(f *testing.F) {
	f.Add(Example())
	for _, dir := range []string{"testdata", "testdata/bad", "testdata/warn"} {
		files, err := os.ReadDir(dir)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file.Name(), ".toml") {
				data, err := os.ReadFile(dir + "/" + file.Name())
				if err != nil {
					f.Fatal(err)
				}
				f.Add(string(data))
			}
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		cfg, err := Parse(strings.NewReader(text), "f")
		if err != nil {
			if strings.TrimSpace(err.Error()) == "" {
				t.Error("refused without a reason")
			}
			return
		}
		checkAccepted(t, cfg)
	})
}

func checkAccepted(t *testing.T, cfg *Config) {
	t.Helper()
	if p := cfg.Timing().Check(); len(p) > 0 {
		t.Errorf("accepted timing with %v", p)
	}
	seen := map[netip.Addr]bool{}
	for _, g := range cfg.Core().Groups {
		for _, a := range g.Addresses {
			if seen[a.Addr()] {
				t.Errorf("accepted %s twice", a)
			}
			seen[a.Addr()] = true
		}
		for _, n := range cfg.Nodes {
			if !n.Witness && cfg.InterfaceFor(n.Name, g.Name) == "" {
				t.Errorf("accepted group %s without an interface on %s", g.Name, n.Name)
			}
		}
		if (g.Policy == "") != (g.Role == core.Reader) || len(g.Addresses) == 0 || g.Role == core.Reader && len(g.Addresses) != 1 {
			t.Errorf("accepted group %+v", g)
		}
	}
	for _, n := range cfg.Nodes {
		if seen[n.Address.Addr()] || !n.Address.IsValid() {
			t.Errorf("accepted node %+v", n)
		}
	}
}

// Every key of [process] has its effect, and without the table the daemon takes what a database host can give it.
func TestProcessTable(t *testing.T) {
	want := Process{KernelLease: LeaseNFTables, Scheduling: Scheduling{Class: "nice", Priority: -15}, LockMemory: LockTouched,
		Watchdog: WatchdogOff, WatchdogDevice: "/dev/watchdog", WatchdogTimeout: 10 * time.Second}
	if got := mustParse(t, okFile(t)).Process; got != want {
		t.Errorf("without the table: %+v, want %+v", got, want)
	}
	fast := mustParse(t, strings.Replace(okFile(t), `"lan"`, `"fast"`, 1)).Process.Scheduling
	if (fast != Scheduling{Class: "rr", Priority: 1}) {
		t.Errorf("profile fast without the table: %+v", fast)
	}
	cfg := mustParse(t, strings.Replace(okFile(t), `"lan"`, `"wan"`, 1)+`
[process]
kernel_lease = "lifetime"
scheduling = "nice:-5"
lock_memory = "all"
watchdog = "required"
watchdog_device = "/dev/watchdog1"
watchdog_timeout = "5s"
`)
	want = Process{KernelLease: LeaseLifetime, Scheduling: Scheduling{Class: "nice", Priority: -5}, LockMemory: LockAll,
		Watchdog: WatchdogRequired, WatchdogDevice: "/dev/watchdog1", WatchdogTimeout: 5 * time.Second}
	if cfg.Process != want {
		t.Errorf("got %+v, want %+v", cfg.Process, want)
	}
	if ps := cfg.Unfenced(); len(ps) > 0 {
		t.Errorf("profile wan is refused without a fence: %v", ps)
	}
	if ps := mustParse(t, okFile(t)).Unfenced(); len(ps) != 1 || ps[0].Key != "[timing] ttl" {
		t.Errorf("profile lan is not refused without a fence: %v", ps)
	}
}
