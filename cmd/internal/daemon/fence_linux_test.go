package daemon

import (
	"bytes"
	"log/slog"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/netio"
)

// inNamespace lets the rest of the test run in a network namespace of its own, with nothing but loopback. What it starts
// does too, other goroutines do not.
func inNamespace(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal("make a network namespace, for which one has to be root: ", err)
	}
	command(t, "ip", "link", "set", "lo", "up")
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// killed leaves an address and a closed fence in the kernel, as a daemon that was killed does.
func killed(t *testing.T, vip netip.Prefix, interfaceName string) {
	t.Helper()
	spec := core.GroupSpec{Name: "writer", Addresses: []netip.Prefix{vip}, Interface: interfaceName}
	fence, err := netio.NewFence(netio.FenceConfig{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := netio.NewBinder(netio.Config{Fence: fence})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Guard([]core.GroupSpec{spec}); err != nil {
		t.Fatal(err)
	}
	if err := fence.Arm(1, time.Minute, nil); err != nil {
		t.Fatal(err)
	}
	err = b.Bind(t.Context(), core.Bind{Group: "writer", Epoch: 1, Lifetime: time.Minute, Report: 1, NotAfter: netio.Boottime().Add(time.Minute),
		Spec: spec})
	if err != nil {
		t.Fatal(err)
	}
	if err := fence.Detach(); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

// A process that is to have no fence, by its configuration or as a witness, clears away that of the one before it, after the
// addresses that it had closed.
func TestCleanWithoutFence(t *testing.T) {
	unfenced := strings.NewReplacer("[tls]", "[process]\nkernel_lease = \"lifetime\"\n[tls]", `policy = "promote"`, "policy = \"promote\"\nfence_port = false")
	cfg := load(t, "profile = \"wan\"\n"+unfenced.Replace(promoting))
	vip := netip.MustParsePrefix("10.77.0.100/32")
	for _, name := range []core.NodeName{"db1", "mgr"} {
		t.Run(string(name), func(t *testing.T) {
			inNamespace(t)
			killed(t, vip, "lo")
			n, _ := cfg.Node(name)
			d := &daemon{opt: Options{Config: cfg, Self: n.NodeSpec}, cfg: cfg, log: slog.New(slog.DiscardHandler)}
			if err := d.makeFence(); err != nil {
				t.Fatal(err)
			}
			b, err := netio.NewBinder(netio.Config{Fence: d.fence})
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			d.binder = b
			if err := d.clean(); err != nil {
				t.Error(err)
			}
			if bound := command(t, "ip", "-o", "address", "show", "to", vip.String()); bound != "" {
				t.Errorf("still bound: %s", bound)
			}
			if rules := command(t, "nft", "list", "ruleset"); rules != "" {
				t.Errorf("there are still rules:\n%s", rules)
			}
		})
	}
}

// Where a table can not be removed because an address that it closes is bound by somebody else, the daemon does not start,
// and says what to do.
func TestCleanLeavesClosedWhatIsBound(t *testing.T) {
	inNamespace(t)
	vip := netip.MustParsePrefix("10.77.0.100/32")
	killed(t, vip, "lo")
	command(t, "ip", "address", "delete", vip.String(), "dev", "lo")
	command(t, "ip", "address", "add", vip.String(), "dev", "lo") // without our mark
	b, err := netio.NewBinder(netio.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	d := &daemon{binder: b, unfenced: true, log: slog.New(slog.DiscardHandler)}
	err = d.clean()
	if err == nil || !strings.Contains(err.Error(), "10.77.0.100/32") || !strings.Contains(err.Error(), "nft delete table inet remora") {
		t.Errorf("clean: %v", err)
	}
	if rules := command(t, "nft", "list", "ruleset"); !strings.Contains(rules, "table inet remora") {
		t.Errorf("the rules are now:\n%s", rules)
	}
}

// The fence of an earlier process is replaced by one that is closed from its first moment: after no transaction is the address,
// which is bound without our mark, out of a table, or its frames without their hook.
func TestCleanLeavesNoGap(t *testing.T) {
	inNamespace(t)
	command(t, "ip", "link", "add", "eth1", "type", "veth", "peer", "name", "peer1")
	command(t, "ip", "link", "set", "eth1", "up")
	const db2 = "address = \"10.77.0.12:7400\"\n"
	cfg := load(t, strings.Replace(promoting, db2, db2+"interface = \"eth1\"\n", 1))
	n, _ := cfg.Node("db2")
	vip := cfg.Groups[0].Addresses[0]
	news := followTables(t, vip.Addr())
	killed(t, vip, "eth1")
	command(t, "ip", "address", "delete", vip.String(), "dev", "eth1")
	command(t, "ip", "address", "add", vip.String(), "dev", "eth1")
	news.read()

	d := &daemon{opt: Options{Config: cfg, Self: n.NodeSpec}, cfg: cfg, log: slog.New(slog.DiscardHandler)}
	if err := d.makeFence(); err != nil {
		t.Fatal(err)
	}
	b, err := netio.NewBinder(d.binderConfig(nil))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	d.binder = b
	if err := d.clean(); err != nil {
		t.Fatal(err)
	}
	news.read()
	if bound := command(t, "ip", "-o", "address", "show", "to", vip.String()); bound == "" {
		t.Error("what was bound by hand is gone, so nothing was tried")
	}
	if err := d.fence.Check(); err != nil {
		t.Error(err)
	}
}

// tableNews follows what transactions do to the fence's tables.
type tableNews struct {
	t      *testing.T
	conn   *netlink.Conn
	vip    []byte
	tables map[byte]*tableState // by family, of each that was there once
	after  int                  // transactions
}

// tableState is what a table had at the end of the last transaction.
type tableState struct{ there, guards, hooked, wasHooked bool }

func followTables(t *testing.T, vip netip.Addr) *tableNews {
	t.Helper()
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetReadBuffer(1 << 20); err != nil {
		t.Fatal(err)
	}
	if err := conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		t.Fatal(err)
	}
	return &tableNews{t: t, conn: conn, vip: vip.AsSlice(), tables: map[byte]*tableState{}}
}

// read reads what has happened so far.
func (n *tableNews) read() {
	n.t.Helper()
	const end = "that-is-all"
	command(n.t, "nft", "add table inet "+end+"; delete table inet "+end)
	if err := n.conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		n.t.Fatal(err)
	}
	for {
		msgs, err := n.conn.Receive()
		if err != nil {
			n.t.Fatal("read the news of nf_tables: ", err)
		}
		for _, m := range msgs {
			if kind := m.Header.Type & 0xff; kind == unix.NFT_MSG_NEWGEN {
				n.endOfTransaction()
			} else if table := n.note(kind, m.Data); table == end && kind == unix.NFT_MSG_DELTABLE {
				return
			}
		}
	}
}

// note takes one message: a family and, behind the rest of its header, attributes.
func (n *tableNews) note(kind netlink.HeaderType, b []byte) (table string) {
	n.t.Helper()
	as, err := netlink.UnmarshalAttributes(b[4:])
	if err != nil {
		n.t.Fatal(err)
	}
	attribute := map[uint16][]byte{}
	for _, a := range as {
		attribute[a.Type&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)] = a.Data
	}
	text := func(typ uint16) string { return string(bytes.TrimRight(attribute[typ], "\x00")) }
	if table = text(unix.NFTA_TABLE_NAME); table != netio.FenceTable { // its number is the same in all messages
		return table
	}
	s := n.tables[b[0]]
	if s == nil {
		s = &tableState{}
		n.tables[b[0]] = s
	}
	switch kind {
	case unix.NFT_MSG_NEWTABLE:
		s.there = true
	case unix.NFT_MSG_DELTABLE:
		*s = tableState{wasHooked: s.wasHooked}
	case unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_DELSETELEM:
		if text(unix.NFTA_SET_ELEM_LIST_SET) == "addr4" && bytes.Contains(attribute[unix.NFTA_SET_ELEM_LIST_ELEMENTS], n.vip) {
			s.guards = kind == unix.NFT_MSG_NEWSETELEM
		}
	case unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN:
		if text(unix.NFTA_CHAIN_NAME) == "frames-eth1" {
			s.hooked = kind == unix.NFT_MSG_NEWCHAIN
		}
	}
	return table
}

func (n *tableNews) endOfTransaction() {
	n.t.Helper()
	n.after++
	for family, s := range n.tables {
		s.wasHooked = s.wasHooked || s.hooked
		if !s.there || !s.guards || s.wasHooked && !s.hooked {
			n.t.Errorf("after transaction %d the table of family %d is there: %t, guards the address: %t, has the hook for frames: %t",
				n.after, family, s.there, s.guards, s.hooked)
		}
	}
}
