package lab

import (
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// identifier is a flavor that only knows the versions of fakeServer.
type identifier struct{ MariaDB }

// fakeServer greets like a server of a node until it is stopped.
func fakeServer(t *testing.T, h *Host, at netip.Addr) (stop func()) {
	t.Helper()
	var ln net.Listener
	err := h.NS.Do(func() (err error) {
		ln, err = net.Listen("tcp", netip.AddrPortFrom(at, ServerPort).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	greeting := append(unhex(t, "30000000 0a"), ("10.0" + versionMark + h.Name + "\x00xxxx")...)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				c.Write(greeting[:9])
				c.Write(greeting[9:])
				io.Copy(io.Discard, c)
			}()
		}
	}()
	t.Cleanup(func() { ln.Close() })
	return func() { ln.Close() }
}

func TestStream(t *testing.T) {
	l := newLab(t, Options{Nodes: []NodeOptions{{Name: "db1"}, {Name: "db2"}}, Server: identifier{}})
	ctx := testContext(t)
	db1, db2 := l.Node("db1"), l.Node("db2")
	hold := func(h *Host) { ip(t, h, "address add "+l.VIP().String()+"/32 dev eth0") }
	hold(db1.Host)
	stop := fakeServer(t, db1.Host, l.VIP())
	s, err := l.StartStream(StreamOptions{Timeout: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.WaitAnswered(ctx, 20); err != nil {
		t.Fatal(err)
	}
	if _, err := l.StartStream(StreamOptions{}); err == nil {
		t.Error("a second stream was started")
	}

	// Nobody listens: refused at once.
	from := time.Now()
	stop()
	eventually(t, "refusals", func() bool { return s.Stats(from, time.Time{}).Failures[Refused] > 5 })

	// The address moves; what was sent to the old node in between is lost, and times out.
	if err := l.Drop("db1", Both); err != nil {
		t.Fatal(err)
	}
	eventually(t, "time-outs", func() bool { return s.Stats(from, time.Time{}).Failures[TimedOut] > 5 })
	ip(t, db1.Host, "address del "+l.VIP().String()+"/32 dev eth0")
	hold(db2.Host)
	fakeServer(t, db2.Host, l.VIP())
	ip(t, l.client, "neigh replace "+l.VIP().String()+" lladdr "+db2.MAC.String()+" dev eth0 nud reachable")
	if err := s.WaitAnswered(ctx, 20); err != nil {
		t.Fatal(err)
	}
	to := time.Now()
	if err := s.Settle(ctx, to); err != nil {
		t.Fatal(err)
	}
	got := s.Stats(from.Add(-20*time.Millisecond), to)
	if !slices.Equal(got.Servers, []string{"db1", "db2"}) || got.Pending != 0 {
		t.Errorf("answers from %v, %d pending", got.Servers, got.Pending)
	}
	if got.Gap < 300*time.Millisecond || got.Gap > to.Sub(from) || got.Longest < 300*time.Millisecond || got.Longest > time.Second {
		t.Errorf("gap %v, longest %v of %v", got.Gap, got.Longest, to.Sub(from))
	}
	if _, err := s.Late(); err != nil {
		t.Error(err)
	}
}

// A client of the IPv6 address has a stream of its own, beside the one of the IPv4 address.
func TestStreamIPv6(t *testing.T) {
	l := newLab(t, Options{Nodes: []NodeOptions{{Name: "db1"}}, Server: identifier{}, VIPs: []netip.Prefix{DefaultVIP(), DefaultVIP6()}})
	first, err := l.StartStream(StreamOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ip(t, l.Node("db1").Host, "address add "+DefaultVIP6().String()+" dev eth0 nodad")
	fakeServer(t, l.Node("db1").Host, DefaultVIP6().Addr())
	s, err := l.StartStream(StreamOptions{Target: netip.AddrPortFrom(DefaultVIP6().Addr(), ServerPort)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.WaitAnswered(testContext(t), 20); err != nil {
		t.Fatal(err)
	}
	if got := s.Stats(time.Time{}, time.Time{}).Servers; !slices.Equal(got, []string{"db1"}) {
		t.Errorf("answers from %v", got)
	}
	if got := first.Stats(time.Time{}, time.Time{}).Servers; len(got) > 0 || l.Stream() != first {
		t.Errorf("nobody holds the IPv4 address: answers from %v", got)
	}
}

func TestStreamWithoutAddress(t *testing.T) {
	l := newLab(t, Options{Nodes: []NodeOptions{{Name: "db1"}}})
	from := time.Now()
	s, err := l.StartStream(StreamOptions{Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "failures", func() bool { return s.Stats(from, time.Time{}).Failed > 10 })
	if st := s.Stats(from, time.Time{}); len(st.Servers) != 0 || st.Gap < 50*time.Millisecond {
		t.Errorf("nobody holds the address: %+v", st)
	}
}
