package daemon

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/remora-ha/remora/cmd/internal/config"
	"github.com/remora-ha/remora/core"
)

const promoting = `cluster = "orders"
[mysql]
address = "127.0.0.1:3307"
[replication]
user = "repl"
password_file = "/etc/remora/replication.password"
[tls]
ca = "/etc/remora/ca.pem"
cert = "/etc/remora/node.pem"
key = "/etc/remora/node.key"
[[node]]
name = "db1"
address = "10.77.0.11:7400"
mysql = "10.88.0.11:3306"
[[node]]
name = "db2"
address = "10.77.0.12:7400"
[[node]]
name = "mgr"
address = "10.77.0.20:7400"
witness = true
[[group]]
name = "writer"
role = "writer"
policy = "promote"
addresses = ["10.77.0.100/32"]
interface = "eth0"
`

func load(t *testing.T, text string) *config.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "remora.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// The server's port is open to the members of the file and of the ledger, at the addresses of both networks, and to whom
// the file allows; it opens to everybody with the first address that the ledger gives the group.
func TestPortIsOpenToMembersAndWhomTheFileAllows(t *testing.T) {
	cfg := load(t, promoting+"fence_allow = [\"10.77.4.9/24\", \"fd00::1\"]\n")
	p := portFence(cfg, "db1", toGuard{
		groups: []core.GroupSpec{{Name: "writer", Addresses: []netip.Prefix{netip.MustParsePrefix("10.77.0.101/32")}}},
		nodes:  []core.NodeSpec{{Name: "db9", Address: netip.MustParseAddrPort("10.77.0.19:7400")}}})
	if p == nil || !slices.Equal(p.Ports, []uint16{3306, 3307}) || p.Lease != netip.MustParseAddr("10.77.0.101") {
		t.Fatalf("%+v", p)
	}
	var got []string
	for _, a := range p.Permit {
		got = append(got, a.String())
	}
	const want = "10.77.0.11/32 10.77.0.12/32 10.77.0.19/32 10.77.0.20/32 10.77.4.0/24 10.88.0.11/32 fd00::1/128"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("open to %s, want %s", s, want)
	}
	if p := portFence(cfg, "db1", toGuard{}); p.Lease != netip.MustParseAddr("10.77.0.100") {
		t.Errorf("without a ledger by the lease of %v", p.Lease)
	}
	if p := portFence(cfg, "mgr", toGuard{}); p != nil {
		t.Errorf("on a witness: %+v", p)
	}
	if p := portFence(load(t, promoting+"fence_port = false\n"), "db1", toGuard{}); p != nil {
		t.Errorf("switched off: %+v", p)
	}
	if problems := cfg.Unfenced(); len(problems) == 0 || !strings.Contains(problems.Error(), "fence_port: needs the kernel's fence") {
		t.Errorf("without a fence in the kernel: %v", problems)
	}
}
