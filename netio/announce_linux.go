package netio

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/remora-ha/remora/core"
)

// Announce sends one round for all addresses of the group: for IPv4 a gratuitous ARP request and a gratuitous ARP
// reply to everybody, for IPv6 an unsolicited neighbour advertisement to all nodes. The time and the gate are looked at
// before the frames of each address. The core calls it only for addresses that are bound.
//
// The interface is looked up anew each time, so that one that was made again, or has another hardware address since a
// bond changed its leg, is announced as it is now. Loopback and interfaces without ARP have nobody to tell: that is no
// error.
func (b *Binder) Announce(ctx context.Context, a core.Announce) error {
	if err := b.announce(ctx, b.permit(a.Group, a.Epoch, a.NotAfter), a.Spec); err != nil {
		return fmt.Errorf("netio: announce group %s epoch %d: %w", a.Group, a.Epoch, err)
	}
	return nil
}

func (b *Binder) announce(ctx context.Context, p permit, spec core.GroupSpec) error {
	if err := p.check(); err != nil {
		return err
	}
	l, err := b.speakable(spec)
	if err != nil || l.silent() {
		return err
	}
	var failed []error
	buf := make([]byte, 0, 2*frameMin)
	for _, addr := range spec.Addresses {
		err := ctx.Err()
		if err == nil {
			err = b.announceOne(p, l, addr.Addr(), buf)
		}
		if err != nil {
			failed = append(failed, err) // the other addresses are told all the same
		}
		if ctx.Err() != nil || errors.Is(err, ErrLate) {
			break
		}
	}
	return errors.Join(failed...)
}

func (b *Binder) announceOne(p permit, l link, ip netip.Addr, buf []byte) error {
	if ip.Is6() {
		return b.senders.send(l, UnsolicitedNA(l.MAC, ip).AppendFrame(buf), multicastMAC(allNodes), p.check)
	}
	return errors.Join(
		b.senders.send(l, GratuitousARP(ARPRequest, l.MAC, ip).AppendFrame(buf), broadcast, p.check),
		b.senders.send(l, GratuitousARP(ARPReply, l.MAC, ip).AppendFrame(buf), broadcast, p.check),
	)
}

// speakable returns the group's interface if frames can be sent on it, or if it has nobody to send them to.
func (b *Binder) speakable(spec core.GroupSpec) (l link, err error) {
	err = b.claims.use(func(s *session) error {
		l, err = s.link(b.cfg.Interface(spec))
		return err
	})
	switch {
	case err != nil:
		return link{}, err
	case l.silent():
		return l, nil
	case !l.up():
		return link{}, fmt.Errorf("interface %s: %w", l.Name, ErrLinkDown)
	case !l.Ethernet:
		return link{}, fmt.Errorf("interface %s has no Ethernet address (link type %d): its group can not be announced", l.Name, l.Type)
	}
	return l, nil
}

// netInterface returns what package packet needs to know of an interface.
func (l link) netInterface() *net.Interface {
	return &net.Interface{Index: int(l.Index), Name: l.Name, HardwareAddr: l.MAC.HardwareAddr()}
}
