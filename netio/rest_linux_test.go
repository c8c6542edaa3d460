package netio

import (
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/remora-ha/remora/core"
)

// While many addresses are worked on, what comes from the network is taken in between, although there is one processor and no
// system call waits: after every restAfter addresses at the latest.
func TestWorkOnManyAddressesRests(t *testing.T) {
	w := newWire(t)
	b := newBinder(t, Config{})
	must(t, setUp(loopback, true))
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	s := spec(w.name, manyAddresses(8*restAfter)...)
	for _, tt := range []struct {
		what string
		work func() error
	}{
		{"bind", func() error { return b.Bind(t.Context(), bindOf(s, 1)) }},
		{"extend", func() error { return b.Extend(t.Context(), extendOf(s, 1, 9*time.Second)) }},
		{"announce", func() error {
			return b.Announce(t.Context(), core.Announce{Group: s.Name, Epoch: 1, Spec: s, NotAfter: soon()})
		}},
		{"unbind", func() error { return b.Unbind(t.Context(), core.Unbind{Group: s.Name, Epoch: 1, Spec: s}) }},
	} {
		turns, stop := pingPong(t)
		before := turns.Load()
		must(t, tt.work())
		if n := turns.Load() - before; n < 7 {
			t.Errorf("%s: %d datagrams were taken in meanwhile, want one at each of 7 rests", tt.what, n)
		}
		stop()
	}
}

// pingPong sends a datagram back and forth over loopback, and counts.
func pingPong(t *testing.T) (turns *atomic.Int64, stop func()) {
	t.Helper()
	turns = new(atomic.Int64)
	listen := func() *net.UDPConn {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		must(t, err)
		return c
	}
	conns := []*net.UDPConn{listen(), listen()}
	done := make(chan struct{}, len(conns))
	for i, c := range conns {
		to := conns[1-i].LocalAddr().(*net.UDPAddr)
		go func() {
			defer func() { done <- struct{}{} }()
			for {
				if _, _, err := c.ReadFromUDP(make([]byte, 1)); err != nil {
					return
				}
				turns.Add(1)
				if _, err := c.WriteToUDP([]byte{0}, to); err != nil {
					return
				}
			}
		}()
	}
	_, err := conns[0].WriteToUDP([]byte{0}, conns[1].LocalAddr().(*net.UDPAddr))
	must(t, err)
	return turns, func() {
		for _, c := range conns {
			_ = c.Close()
		}
		for range conns {
			<-done
		}
	}
}
