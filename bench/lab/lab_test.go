package lab

import (
	"context"
	"net/netip"
	"testing"
	"time"
)

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestRing(t *testing.T) {
	ctx := testContext(t)
	t0 := time.Now()
	l, err := New(ctx, Options{Server: MariaDB{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Log("network", time.Since(t0))
	if err := l.StartServers(ctx); err != nil {
		t.Fatal(err)
	}
	t.Log("servers", time.Since(t0))
	run(ctx, "", "ip", "-n", l.Node("db2").NS.Name, "addr", "add", "10.77.0.100/32", "dev", "eth0")
	time.Sleep(50 * time.Millisecond)
	t.Log(l.AddrEvents())
	s, err := l.StartStream(StreamOptions{Target: netip.AddrPortFrom(l.VIP(), ServerPort), Interval: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.WaitAnswered(ctx, 10); err != nil {
		t.Fatal(err, s.Attempts(t0)[:10])
	}
	from := time.Now()
	u0, _ := l.Node("db2").Server().Usage()
	time.Sleep(3 * time.Second)
	u1, _ := l.Node("db2").Server().Usage()
	t.Logf("%+v", s.Stats(from, time.Now()))
	n, err := s.Late()
	t.Log("late", n, err, "server cpu in 3 s", u1.CPU-u0.CPU, u1.RSS)
	q, err := l.StartQueries(20*time.Millisecond, time.Second)
	from = time.Now()
	time.Sleep(time.Second)
	t.Logf("%+v", q.Stats(from, time.Now()))
	t.Log(l.ARPFrames())
	for _, e := range l.Events(t0, time.Now()) {
		t.Log(e.Time.Sub(t0), e.Source, e.Node, e.What, e.Detail)
	}
}
