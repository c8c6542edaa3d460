package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mdlayher/packet"
)

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// testRoot returns a directory with a short path, for unix sockets.
func testRoot(t *testing.T) string {
	t.Helper()
	root, err := os.MkdirTemp("", "rl")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(root, 0o755); err != nil { // for the servers, which are not root
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	return root
}

// newLab raises a laboratory that ends with the test.
func newLab(t *testing.T, o Options) *Lab {
	t.Helper()
	if o.Root == "" {
		o.Root = testRoot(t)
	}
	l, err := New(testContext(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		checkGone(t, l.Name(), l.Dir())
	})
	return l
}

// checkGone fails if anything of a laboratory is left.
func checkGone(t *testing.T, name, dir string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(netnsDir, name+"-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("namespaces are left: %v %v", left, err)
	}
	if exists(dir) {
		t.Errorf("the directory %s is left", dir)
	}
}

// eventually polls until ok returns true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := poll(ctx, 2*time.Millisecond, func() (bool, error) { return ok(), nil }); err != nil {
		t.Fatalf("%s did not come about: %v", what, err)
	}
}

func ip(t *testing.T, h *Host, args string) {
	t.Helper()
	if err := run(t.Context(), "", "ip", append([]string{"-n", h.NS.Name}, strings.Fields(args)...)...); err != nil {
		t.Fatal(err)
	}
}

func TestNetwork(t *testing.T) {
	l := newLab(t, Options{Nodes: []NodeOptions{{Name: "db1"}, {Name: "db2"}, {Name: "mgr", Witness: true}}})
	for _, h := range l.allHosts() {
		var got []string
		err := h.NS.Do(func() error {
			ifi, err := net.InterfaceByName(Interface)
			if err != nil {
				return err
			}
			if ifi.HardwareAddr.String() != h.MAC.String() {
				t.Errorf("%s has the hardware address %v, want %v", h.Name, ifi.HardwareAddr, h.MAC)
			}
			addrs, err := ifi.Addrs()
			for _, a := range addrs {
				got = append(got, a.String())
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{h.Addr.String() + "/24", hostAddr6(h.number).String() + "/64"} {
			if !slices.Contains(got, want) {
				t.Errorf("%s lacks %s: it has %v", h.Name, want, got)
			}
		}
	}
	if mgr := l.Node("mgr"); mgr.Addr != netip.MustParseAddr("10.77.0.20") || len(l.Servers()) != 2 {
		t.Errorf("the witness is at %v; %d servers", mgr.Addr, len(l.Servers()))
	}
	// A refusal proves that packets go both ways.
	for _, addr := range []string{"10.77.0.12:1", "[fd77::12]:1"} {
		if _, err := l.client.NS.Dial(testContext(t), "tcp", addr); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("the client does not reach %s: %v", addr, err)
		}
	}
}

func TestNoIPv6(t *testing.T) {
	l := newLab(t, Options{Nodes: []NodeOptions{{Name: "db1"}}, NoIPv6: true})
	out, err := l.Node("db1").NS.Command(t.Context(), "ip", "-6", "address")
	if err != nil || strings.TrimSpace(string(out)) != "" {
		t.Errorf("IPv6 addresses with NoIPv6: %s %v", out, err)
	}
}

func TestAddressesAreObserved(t *testing.T) {
	l := newLab(t, Options{})
	vip := l.VIP()
	db1, db2 := l.Node("db1"), l.Node("db2")
	ip(t, db1.Host, "address add "+vip.String()+"/32 dev eth0")
	ip(t, db1.Host, "address add 10.77.0.101/32 dev eth0") // nobody watches this one
	eventually(t, "db1 holding the address", func() bool { return l.Holder(vip) == "db1" })
	ip(t, db1.Host, "address del "+vip.String()+"/32 dev eth0")
	ip(t, db2.Host, "address add "+vip.String()+"/32 dev lo valid_lft 77 preferred_lft 77")
	eventually(t, "db2 holding the address", func() bool { return l.Holder(vip) == "db2" })
	if o, err := l.Overlaps(vip); err != nil || len(o) != 0 {
		t.Errorf("a clean move: overlaps %+v, %v", o, err)
	}
	events, _ := l.AddrEvents()
	if last := events[len(events)-1]; last.Valid != 77*time.Second || len(events) != 3 {
		t.Errorf("address events %+v", events)
	}
	ip(t, l.Node("db3").Host, "address add "+vip.String()+"/24 dev eth0")
	ip(t, db2.Host, "address del "+vip.String()+"/32 dev lo")
	eventually(t, "db3 holding the address", func() bool { return l.Holder(vip) == "db3" })
	o, err := l.Overlaps(vip)
	if err != nil || len(o) != 1 || !slices.Equal(o[0].Nodes, []string{"db2", "db3"}) || o[0].To.IsZero() {
		t.Errorf("two holders: overlaps %+v, %v", o, err)
	}
}

// TestAddressOrderIsTheKernels moves the address to and fro as fast as it goes: in a clean order there is never an
// overlap, however late the events are read.
func TestAddressOrderIsTheKernels(t *testing.T) {
	l := newLab(t, Options{Nodes: []NodeOptions{{Name: "a"}, {Name: "b"}}})
	add := "address add " + l.VIP().String() + "/32 dev eth0\n"
	del := "address del " + l.VIP().String() + "/32 dev eth0\n"
	const rounds = 40
	for range rounds {
		for _, n := range []string{"a", "b"} {
			if err := run(t.Context(), strings.Repeat(add+del, 5), "ip", "-n", l.Node(n).NS.Name, "-batch", "-"); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, "the last event", func() bool { e, _ := l.AddrEvents(); return len(e) == rounds*2*5*2 })
	if o, err := l.Overlaps(l.VIP()); err != nil || len(o) != 0 {
		t.Errorf("overlaps %+v, %v", o, err)
	}
}

func TestLinksAreObserved(t *testing.T) {
	l := newLab(t, Options{Nodes: []NodeOptions{{Name: "db1"}}})
	from := time.Now()
	n := l.Node("db1")
	sees := func(what string) func() bool {
		return func() bool {
			return slices.ContainsFunc(l.Events(from, time.Now()), func(e Event) bool { return e.Node == "db1" && e.What == what })
		}
	}
	for _, set := range []func(bool) error{n.SetCable, n.SetLink} {
		for _, up := range []bool{false, true} {
			if err := set(up); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, "link down", sees("link down"))
	if err := n.SetCable(false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "carrier lost", sees("carrier lost"))
}

// sendFrom sends a frame from a node's interface.
func sendFrom(t *testing.T, n *Node, frame []byte) {
	t.Helper()
	err := n.NS.Do(func() error {
		ifi, err := net.InterfaceByName(Interface)
		if err != nil {
			return err
		}
		c, err := packet.Listen(ifi, packet.Raw, 0, nil)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.WriteTo(frame, &packet.Addr{HardwareAddr: frame[:6]})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestARPIsObserved(t *testing.T) {
	l := newLab(t, Options{Nodes: []NodeOptions{{Name: "db1"}, {Name: "db2"}}})
	from := time.Now()
	frame := unhex(t, gratuitous)
	send := func() { t.Helper(); sendFrom(t, l.Node("db1"), frame) }
	count := func() (n int) {
		frames, err := l.ARPFrames()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range frames {
			if f.Gratuitous() && f.SenderIP == l.VIP() && f.Node == "db1" && f.Time.After(from) && f.Time.Before(time.Now()) {
				n++
			}
		}
		return n
	}
	send()
	eventually(t, "the announcement", func() bool { return count() == 1 })
	// What a fault drops nobody sees, and a unicast frame between two ports is seen.
	if err := l.Drop("db1", Out); err != nil {
		t.Fatal(err)
	}
	send()
	if err := l.Heal("db1"); err != nil {
		t.Fatal(err)
	}
	copy(frame, l.Node("db2").MAC)
	send()
	eventually(t, "the unicast frame", func() bool { return count() == 2 })
	if n := count(); n != 2 {
		t.Errorf("%d announcements were seen, want 2: one was dropped", n)
	}
}

func TestNeighborAdvertisementsAreObserved(t *testing.T) {
	vip := DefaultVIP6().Addr()
	l := newLab(t, Options{Nodes: []NodeOptions{{Name: "db1"}}, VIPs: []netip.Prefix{DefaultVIP(), DefaultVIP6()}})
	from := time.Now()
	sendFrom(t, l.Node("db1"), unhex(t, advertisement)) // of db1's
	eventually(t, "the announcement", func() bool {
		as, err := l.Announced(vip)
		if err != nil {
			t.Fatal(err)
		}
		return len(as) == 1 && as[0].Node == "db1" && as[0].Addr == vip && as[0].Time.After(from)
	})
	if !slices.ContainsFunc(l.Events(from, time.Now()), func(e Event) bool { return e.Node == "db1" && e.What == WhatAdvertised }) {
		t.Error("it is not among the events")
	}
	if as, err := l.Announced(l.VIP()); err != nil || len(as) > 0 {
		t.Errorf("announcements of the other address: %v, %v", as, err)
	}
}

// listener counts the datagrams that arrive at a host, by their content.
type listener struct {
	conn net.PacketConn
	got  chan string
}

func listen(t *testing.T, h *Host) *listener {
	t.Helper()
	l := &listener{got: make(chan string, 10000)}
	err := h.NS.Do(func() (err error) {
		l.conn, err = net.ListenPacket("udp4", h.Addr.String()+":9999")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.conn.Close() })
	go func() {
		buf := make([]byte, 100)
		for {
			n, _, err := l.conn.ReadFrom(buf)
			if err != nil {
				close(l.got)
				return
			}
			l.got <- string(buf[:n])
		}
	}()
	return l
}

// sendTo sends datagrams; an error of the kernel's is what a dead network may give.
func sendTo(t *testing.T, from, to *Host, text string, count int) {
	t.Helper()
	conn, err := from.NS.Dial(t.Context(), "udp4", to.Addr.String()+":9999")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range count {
		fmt.Fprint(conn, text)
	}
}

func TestFaultsDrop(t *testing.T) {
	l := newLab(t, Options{})
	hosts := []*Host{l.Node("db1").Host, l.Node("db2").Host, l.Node("db3").Host}
	ears := map[string]*listener{}
	for _, h := range hosts {
		ears[h.Name] = listen(t, h)
		// Permanent neighbours: a drop must be seen as a drop and not as an ARP query without answer.
		for _, o := range hosts {
			if o != h {
				ip(t, h, fmt.Sprintf("neigh replace %v lladdr %v dev eth0 nud permanent", o.Addr, o.MAC))
			}
		}
	}
	// reach sends from everybody to everybody and returns the pairs that got through.
	round := 0
	reach := func() string {
		t.Helper()
		round++
		for _, a := range hosts {
			for _, b := range hosts {
				if a != b {
					sendTo(t, a, b, fmt.Sprintf("%d %s>%s", round, a.Name[2:], b.Name[2:]), 1)
				}
			}
		}
		var got []string
		for _, h := range hosts {
			timeout := time.After(100 * time.Millisecond)
			for open := true; open; {
				select {
				case text := <-ears[h.Name].got:
					if r, pair, _ := strings.Cut(text, " "); r == fmt.Sprint(round) {
						got = append(got, pair)
					}
				case <-timeout:
					open = false
				}
			}
		}
		slices.Sort(got)
		return strings.Join(got, " ")
	}
	afresh := func(next func() error) error {
		if err := l.HealAll(); err != nil {
			return err
		}
		return next()
	}
	const all = "1>2 1>3 2>1 2>3 3>1 3>2"
	steps := []struct {
		name string
		do   func() error
		want string
	}{
		{"nothing", func() error { return nil }, all},
		{"out", func() error { return l.Drop("db1", Out) }, "2>1 2>3 3>1 3>2"},
		{"and in", func() error { return l.Drop("db1", In) }, "2>3 3>2"},
		{"healed", func() error { return l.Heal("db1") }, all},
		{"in", func() error { return l.Drop("db2", In) }, "1>3 2>1 2>3 3>1"},
		{"one pair", func() error { return afresh(func() error { return l.DropBetween("db1", "db3") }) }, "1>2 2>1 2>3 3>1 3>2"},
		{"parted", func() error { return afresh(func() error { return l.Part([]string{"db1"}, []string{"db2", "db3"}) }) }, "2>3 3>2"},
		{"loss of all", func() error { return afresh(func() error { return l.Loss("db3", 100) }) }, "1>2 2>1"},
		{"healed again", l.HealAll, all},
		{"cable", func() error { return l.Node("db1").SetCable(false) }, "2>3 3>2"},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		if got := reach(); got != s.want {
			t.Errorf("%s: %q got through, want %q", s.name, got, s.want)
		}
	}
	if err := l.Drop("nobody", Both); err == nil {
		t.Error("a fault of an unknown host was accepted")
	}
}

func TestLossIsAShare(t *testing.T) {
	l := newLab(t, Options{Nodes: []NodeOptions{{Name: "db1"}, {Name: "db2"}}})
	a, b := l.Node("db1").Host, l.Node("db2").Host
	ip(t, a, fmt.Sprintf("neigh replace %v lladdr %v dev eth0 nud permanent", b.Addr, b.MAC))
	ear := listen(t, b)
	if err := l.Loss("db2", 30); err != nil {
		t.Fatal(err)
	}
	const sent = 2000
	for range 20 { // a few at a time, so that the receiver's buffer holds them
		sendTo(t, a, b, "x", sent/20)
		time.Sleep(time.Millisecond)
	}
	got := 0
	for open := true; open; {
		select {
		case <-ear.got:
			got++
		case <-time.After(200 * time.Millisecond):
			open = false
		}
	}
	if share := 1 - float64(got)/sent; share < 0.2 || share > 0.4 {
		t.Errorf("%.0f %% of the datagrams were lost, want 30 %%", share*100)
	}
}
