package peers

import (
	"context"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/remora-ha/remora/bench/lab"
)

// greet has a node greet as a server does, at all its addresses.
func greet(t *testing.T, n *lab.Node) {
	t.Helper()
	var ln net.Listener
	err := n.NS.Do(func() (err error) {
		ln, err = net.Listen("tcp4", netip.AddrPortFrom(netip.IPv4Unspecified(), lab.ServerPort).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				c.Write(append([]byte{0x30, 0, 0, 0, 0x0a}, "10.0\x00"...))
				io.Copy(io.Discard, c)
			}()
		}
	}()
}

// heldBy waits until one node alone has the address.
func heldBy(t *testing.T, l *lab.Lab, node string) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for holders := l.Holders(); len(holders) != 1 || holders[0] != node; holders = l.Holders() {
		if time.Now().After(deadline) {
			t.Fatalf("the address is on %v, want %s", holders, node)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func TestFloorMovesTheAddressWhenItIsTold(t *testing.T) {
	l := newLab(t, "db1", "db2")
	for _, n := range l.Servers() {
		greet(t, n)
	}
	s, err := l.StartStream(lab.StreamOptions{Timeout: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	f := &Floor{Lab: l}
	if err := f.Start(ctx); err != nil {
		t.Fatal(err)
	}
	heldBy(t, l, "db1")

	if err := f.Faulted(ctx, "db2", false); err != nil {
		t.Fatal(err)
	}
	heldBy(t, l, "db1") // a fault elsewhere is none

	if err := f.Faulted(ctx, "db1", false); err != nil {
		t.Fatal(err)
	}
	heldBy(t, l, "db2")
	if err := f.Move(ctx, "db2", "db1"); err != nil {
		t.Fatal(err)
	}
	heldBy(t, l, "db1")

	// A node that has vanished keeps the address until it is back.
	if err := l.Drop("db1", lab.Both); err != nil {
		t.Fatal(err)
	}
	if err := f.Faulted(ctx, "db1", true); err != nil {
		t.Fatal(err)
	}
	if err := l.WaitServed(ctx, s); err != nil {
		t.Fatal(err)
	}
	if err := l.HealAll(); err != nil {
		t.Fatal(err)
	}
	if err := f.Settle(ctx); err != nil {
		t.Fatal(err)
	}
	heldBy(t, l, "db2")
	if err := f.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if left, err := l.Node("db2").ForeignAddrs(); err != nil || len(left) > 0 {
		t.Errorf("left on db2: %v %v", left, err)
	}
}
