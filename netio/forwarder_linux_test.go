package netio

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sentOn accepts a SYN that the node has sent on to the peer.
func sentOn(from, to MAC) func([]byte) bool {
	return func(b []byte) bool {
		dst, ok := tcpTo(b)
		return ok && dst == vip4.Addr() && MAC(b[:6]) == to && MAC(b[6:12]) == from
	}
}

// What comes for an address after it was given up is kept, and goes to the next owner when that announces itself.
func TestWhatComesTooLateIsSentOn(t *testing.T) {
	w := newWire(t)
	node, peer := w.link().MAC, w.peerLink().MAC
	b := newBinder(t, Config{})
	s := spec(w.name, vip4)
	must(t, b.Bind(t.Context(), bindOf(s, 1)))
	frames := w.tap(unix.ETH_P_IP)
	must(t, b.Unbind(t.Context(), unbindOf(s, 1)))
	w.say(synTo(peer, node, client4, vip4.Addr()))
	w.say(synTo(peer, node, client4, vip4.Addr()))
	w.say(synTo(peer, node, client4, client4)) // of no concern
	select {
	case f := <-frames:
		t.Fatalf("sent on before there is an owner: % x", f)
	case <-time.After(50 * time.Millisecond):
	}
	w.say(GratuitousARP(ARPReply, peer, vip4.Addr()).AppendFrame(nil))
	for range 2 {
		expect(t, frames, "a SYN that was kept", sentOn(node, peer))
	}
	w.say(synTo(peer, node, client4, vip4.Addr()))
	expect(t, frames, "a SYN of a neighbour that has not heeded the announcement", sentOn(node, peer))
	must(t, b.Unbind(t.Context(), unbindOf(s, 1)))
	if n := len(b.forwarders.running); n != 1 {
		t.Errorf("%d forwarders after a second unbind, want the one", n)
	}
}

// Reading fails when the interface is set down. With the forwarder ends its socket, which is handed every frame that comes.
func TestAForwarderThatCanNotReadLeavesNoSocket(t *testing.T) {
	w := newWire(t)
	f, err := newForwarder(w.link(), "writer", spec(w.name, vip4), Config{}.withDefaults())
	must(t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.run()
	}()
	w.set(false)
	select {
	case <-ended:
	case <-time.After(forwardWait / 2):
		t.Fatal("it goes on")
	}
	if _, err := f.conn.SyscallConn(); err == nil {
		t.Error("its socket is open")
	}
}

// A node that has the address, or never had it, sends nothing on.
func TestAnOwnerSendsNothingOn(t *testing.T) {
	w := newWire(t)
	node, peer := w.link().MAC, w.peerLink().MAC
	b := newBinder(t, Config{})
	s := spec(w.name, vip4)
	must(t, b.Unbind(t.Context(), unbindOf(s, 1)))
	if n := len(b.forwarders.running); n != 0 {
		t.Errorf("%d forwarders for an address that was never here", n)
	}
	must(t, b.Bind(t.Context(), bindOf(s, 2)))
	must(t, b.Unbind(t.Context(), unbindOf(s, 2)))
	must(t, b.Bind(t.Context(), bindOf(s, 3)))
	frames := w.tap(unix.ETH_P_IP)
	w.say(GratuitousARP(ARPReply, peer, vip4.Addr()).AppendFrame(nil))
	w.say(synTo(peer, node, client4, vip4.Addr()))
	select {
	case f := <-frames:
		if sentOn(node, peer)(f) {
			t.Errorf("the owner sent on: % x", f)
		}
	case <-time.After(100 * time.Millisecond):
	}
	b.forwarders.close()
	if n := len(b.forwarders.running); n != 0 {
		t.Errorf("%d forwarders after the end", n)
	}
}
