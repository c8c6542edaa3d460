package netio

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/remora-ha/remora/core"
)

// Announce sends one round for all addresses of the group: for IPv4 a gratuitous ARP request and a gratuitous ARP
// reply to everybody, for IPv6 an unsolicited neighbour advertisement to all nodes. The frames of many addresses are sent
// at the configured pace, one for each address before the second for any; the time and the gate are looked at before each system call. The core calls it only for addresses
// that are bound.
//
// The interface is looked up anew each time, so that one that was made again, or has another hardware address since a
// bond changed its leg, is announced as it is now; except by the first Announce after a Bind, which has just looked. The
// kernel answers under the lock that whoever lists interfaces holds, and at that moment all do who watch addresses.
// Loopback and interfaces without ARP have nobody to tell: that is no error.
func (b *Binder) Announce(ctx context.Context, a core.Announce) error {
	if err := b.announce(ctx, b.permit(a.Group, a.Epoch, a.NotAfter), a); err != nil {
		return fmt.Errorf("netio: announce group %s epoch %d: %w", a.Group, a.Epoch, err)
	}
	return nil
}

func (b *Binder) announce(ctx context.Context, p permit, a core.Announce) error {
	if err := p.check(); err != nil {
		return err
	}
	if l, ok := b.fresh.take(a.Group, a.Epoch); ok {
		if err := b.announceOn(ctx, p, a.Spec, l); err == nil || errors.Is(err, ErrLate) || ctx.Err() != nil {
			return err
		}
	}
	l, err := b.look(a.Spec)
	if err != nil {
		return err
	}
	return b.announceOn(ctx, p, a.Spec, l)
}

// announceOn sends the frames on an interface, as that was when it was looked up.
func (b *Binder) announceOn(ctx context.Context, p permit, spec core.GroupSpec, l link) error {
	if err := l.speakable(); err != nil || l.silent() {
		return err
	}
	if b.cfg.Fence != nil {
		b.cfg.Fence.GuardFrames(l.Name, l.Index)
	}
	return b.sendAll(ctx, p, l, spec, (*batch).announcement, (*batch).secondForm)
}

// sendAll sends the frame that add has for each address of the group, at the configured pace, and then those that the next add
// has, in the same batches. Most neighbours heed either form, so the last of many addresses waits for half of the frames only.
func (b *Binder) sendAll(ctx context.Context, p permit, l link, spec core.GroupSpec, adds ...func(*batch, MAC, netip.Addr)) error {
	var (
		failed []error
		frames batch
	)
	left := len(adds) * len(spec.Addresses)
	for _, add := range adds {
		for _, addr := range spec.Addresses {
			add(&frames, l.MAC, addr.Addr())
			if left--; left > 0 && len(frames.ends) < b.cfg.Pace.Frames {
				continue
			}
			err := b.senders.send(l, &frames, p.check)
			if err == nil && left > 0 {
				err = b.cfg.Pace.rest(ctx)
			}
			if err != nil {
				failed = append(failed, err) // the other addresses are told all the same
			}
			if ctx.Err() != nil || errors.Is(err, ErrLate) {
				return errors.Join(failed...)
			}
			frames.reset()
		}
	}
	return errors.Join(failed...)
}

// announcement adds the frame that announces an address.
func (b *batch) announcement(mac MAC, ip netip.Addr) {
	if ip.Is6() {
		b.buf = UnsolicitedNA(mac, ip).AppendFrame(b.buf)
	} else {
		b.buf = GratuitousARP(ARPRequest, mac, ip).AppendFrame(b.buf)
	}
	b.end()
}

// secondForm adds the frame that announces an address to those who do not heed the first form: for IPv4 alone.
func (b *batch) secondForm(mac MAC, ip netip.Addr) {
	if ip.Is6() {
		return
	}
	b.buf = GratuitousARP(ARPReply, mac, ip).AppendFrame(b.buf)
	b.end()
}

// look returns the group's interface as it is now.
func (b *Binder) look(spec core.GroupSpec) (l link, err error) {
	err = b.claims.use(func(s *session) error {
		l, err = s.link(b.cfg.Interface(spec))
		return err
	})
	return l, err
}

// prepare opens the socket by which a group is announced. An interface that is not there, or takes no frames, is left to the
// announcement.
func (b *Binder) prepare(spec core.GroupSpec) {
	if l, err := b.look(spec); err == nil && l.speakable() == nil && !l.silent() {
		_, _ = b.senders.get(l)
	}
}

// speakable returns why frames can not be sent on the interface, or nothing; also if it has nobody to send them to.
func (l link) speakable() error {
	switch {
	case l.silent():
		return nil
	case !l.up():
		return fmt.Errorf("interface %s: %w", l.Name, ErrLinkDown)
	case !l.Ethernet:
		return fmt.Errorf("interface %s has no Ethernet address (link type %d): its group can not be announced", l.Name, l.Type)
	}
	return nil
}

// freshLinks are the interfaces that a Bind has just looked up, for the Announce that follows it.
type freshLinks struct {
	mu    sync.Mutex
	links map[core.GroupName]freshLink
}

type freshLink struct {
	epoch core.Epoch
	link  link
}

func (f *freshLinks) put(group core.GroupName, e core.Epoch, l link) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.links == nil {
		f.links = map[core.GroupName]freshLink{}
	}
	f.links[group] = freshLink{e, l}
}

// take returns the interface once.
func (f *freshLinks) take(group core.GroupName, e core.Epoch) (link, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, ok := f.links[group]
	delete(f.links, group)
	return l.link, ok && l.epoch == e
}

// netInterface returns what package packet needs to know of an interface.
func (l link) netInterface() *net.Interface {
	return &net.Interface{Index: int(l.Index), Name: l.Name, HardwareAddr: l.MAC.HardwareAddr()}
}
