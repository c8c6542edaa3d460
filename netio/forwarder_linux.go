package netio

import (
	"bytes"
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/remora-ha/remora/core"
)

// A client that wants to connect while an address moves sends its SYN to a node that does not have the address any more.
// Nobody answers, and the client's kernel tries again only after a second (RFC 6298, 2.1): a takeover of ten milliseconds
// costs that client a hundred times as much. So a node that has given an address up keeps what still comes for it, and
// sends it on to the next owner as soon as that has announced itself; and so it does, for a while, with what neighbours go
// on sending to it that have not heeded the announcement. It answers nothing itself: it is a router on the last hop, and
// who answers is the new owner, whose lease has begun.
//
// Once that has announced itself, connections that were made before are reset: their clients would wait for answers that
// nobody sends. See nudge.
const (
	// forwardFor is how long a node goes on after the next owner's announcement. Who hears it and does not heed it, for want
	// of a second's age of its entry, asks again within a few seconds.
	forwardFor = 3 * time.Second
	// dismissAfter is how long after that the old connections end. To list them keeps a processor for milliseconds, whatever their
	// number, and those who connect anew come first.
	dismissAfter = 2 * time.Millisecond
	// forwardWait is how long it waits for the announcement: a server that is to be promoted may have to apply first.
	forwardWait = 30 * time.Second
	// forwardKept is how many frames are kept until the next owner is known. More than that come only in a flood.
	forwardKept = 1024
	// forwardersMax is for how many groups at once this is done: each looks at every frame that comes.
	forwardersMax = 8
)

// forwarders are at most one forwarder for each group.
type forwarders struct {
	mu      sync.Mutex
	places  map[core.GroupName]link // where a group was bound last
	running map[core.GroupName]*forwarder
	closed  bool
	done    sync.WaitGroup
}

// bound notes where a group is bound, and ends its forwarder.
func (fs *forwarders) bound(g core.GroupName, l link) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.places == nil {
		fs.places, fs.running = map[core.GroupName]link{}, map[core.GroupName]*forwarder{}
	}
	fs.places[g] = l
	fs.stop(g)
}

// stop ends a group's forwarder. The caller holds the lock.
func (fs *forwarders) stop(g core.GroupName) {
	if f := fs.running[g]; f != nil {
		f.cancel()
		delete(fs.running, g)
	}
}

// given starts a forwarder for a group that was bound here and is being given up. It waits for nothing. That it can not
// start costs clients a second and nothing else.
func (fs *forwarders) given(g core.GroupName, spec core.GroupSpec, cfg Config) {
	log := cfg.Logger
	fs.mu.Lock()
	defer fs.mu.Unlock()
	l, ok := fs.places[g]
	delete(fs.places, g) // Unbind is tried again and again
	if !ok || fs.closed || !l.Ethernet || l.silent() || len(fs.running) >= forwardersMax {
		return
	}
	f, err := newForwarder(l, g, spec, cfg)
	if err != nil {
		log.Info("what still comes for the addresses is not sent on", "group", g, "err", err)
		return
	}
	fs.running[g] = f
	fs.done.Go(func() {
		f.run()
		fs.mu.Lock()
		if fs.running[g] == f {
			delete(fs.running, g)
		}
		fs.mu.Unlock()
		if f.trouble != nil {
			log.Warn("old connections to addresses that are not here any more may hang until their clients notice", "group", g, "err", f.trouble)
		}
		if f.sent > 0 || f.ended > 0 {
			log.Info("sent on what came for addresses that are not here any more, and ended old connections", "group", g,
				"frames", f.sent, "connections", f.ended, "clients_nudged", f.nudged, "to", f.next.String())
		}
	})
}

// close ends all forwarders and waits for them.
func (fs *forwarders) close() {
	fs.mu.Lock()
	fs.closed = true
	for g := range fs.running {
		fs.stop(g)
	}
	fs.mu.Unlock()
	fs.done.Wait()
}

// forwarder sends on what comes for the addresses of one group.
type forwarder struct {
	conn      *packet.Conn
	group     core.GroupName
	ips       map[netip.Addr]bool
	own       MAC
	index     uint32
	left      func(Leftover)
	noDestroy bool
	ctx       context.Context
	cancel    context.CancelFunc

	next MAC // of the next owner, zero as long as there is none
	kept []keptFrame

	sent, nudged, ended int
	trouble             error
}

type keptFrame struct {
	frame []byte
	at    time.Time
}

// old reports whether the client has given up meanwhile, or asked again.
func (k keptFrame) old() bool { return time.Since(k.at) >= forwardFor }

func newForwarder(l link, g core.GroupName, spec core.GroupSpec, cfg Config) (*forwarder, error) {
	f := &forwarder{group: g, own: l.MAC, index: l.Index, ips: setOf(spec.Addresses), left: cfg.Left, noDestroy: cfg.NoDestroy}
	filter, err := forwardFilter(addresses(spec))
	if err != nil {
		return nil, err
	}
	if f.conn, err = openPacket(l, unix.ETH_P_ALL, filter); err != nil {
		return nil, err
	}
	f.ctx, f.cancel = context.WithTimeout(context.Background(), forwardWait)
	return f, nil
}

// run forwards until the time is over.
func (f *forwarder) run() {
	defer func() { _ = f.conn.Close() }() // also when reading fails and nobody else would
	defer f.cancel()
	defer context.AfterFunc(f.ctx, func() { _ = f.conn.Close() })()
	buf := make([]byte, 1<<16)
	for {
		n, _, err := f.conn.ReadFrom(buf)
		if f.ctx.Err() != nil || err != nil {
			return
		}
		if f.look(buf[:n]) {
			defer time.AfterFunc(forwardFor, f.cancel).Stop()
			for _, k := range f.kept {
				if !k.old() {
					f.send(k.frame)
				}
			}
			f.kept = nil
			dismissed := f.dismissSoon()
			defer func() { f.trouble = <-dismissed }()
		}
	}
}

// dismissSoon dismisses the old connections after dismissAfter, unless the forwarder ends before, and tells how that went. What
// comes meanwhile is sent on.
func (f *forwarder) dismissSoon() <-chan error {
	done := make(chan error, 1)
	go func() {
		select {
		case <-time.After(dismissAfter):
			done <- f.dismiss()
		case <-f.ctx.Done():
			done <- nil
		}
	}()
	return done
}

// look takes one frame. It reports whether the next owner has announced itself just now.
func (f *forwarder) look(frame []byte) (announced bool) {
	if len(frame) < headerLen || MAC(frame[6:12]) == f.own {
		return false
	}
	if mac, ok := f.claimed(frame); ok {
		announced = f.next == MAC{}
		f.next = mac
		return announced
	}
	to, ok := tcpTo(frame)
	if !ok || !f.ips[to] || MAC(frame[:6]) != f.own {
		return false
	}
	if len(f.kept) == forwardKept {
		f.kept = slices.DeleteFunc(f.kept, keptFrame.old)
	}
	switch {
	case f.next != MAC{}:
		f.send(frame)
	case len(f.kept) < forwardKept:
		f.kept = append(f.kept, keptFrame{bytes.Clone(frame), time.Now()})
	}
	return false
}

// claimed returns the hardware address that a frame announces for one of the addresses.
func (f *forwarder) claimed(frame []byte) (MAC, bool) {
	if a, err := ParseARP(frame); err == nil {
		return a.SenderMAC, f.ips[a.SenderIP] && a.SenderMAC != f.own
	}
	if m, err := ParseNDP(frame); err == nil {
		return m.MAC, m.Type == NeighborAdvertisement && f.ips[m.Target] && m.MAC != MAC{} && m.MAC != f.own
	}
	return MAC{}, false
}

func (f *forwarder) send(frame []byte) {
	if !forward(frame, f.own, f.next) {
		return
	}
	// A frame that was put together from several is too long for the wire, and is lost like any other.
	if _, err := f.conn.WriteTo(frame, &packet.Addr{HardwareAddr: f.next[:]}); err == nil {
		f.sent++
	}
}
