package netio

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/remora-ha/remora/core"
)

// probeCount is how often each address is asked for (PROBE_NUM of RFC 5227, 1.1). The RFC spaces the questions by
// seconds; here they are spread over the first two thirds of the time that there is.
const probeCount = 3

// Probe asks the link for a.For whether somebody else uses one of the group's addresses: by ARP probes for IPv4, which
// do not claim anything, by solicitations as in duplicate address detection for IPv6. It returns the hardware address
// of the first who claims or probes for one, as soon as it is heard, or nil. Addresses of this node's own interfaces do
// not count.
func (b *Binder) Probe(ctx context.Context, a core.Probe) (conflict net.HardwareAddr, err error) {
	conflict, err = b.probe(ctx, b.permit(a.Group, a.Epoch, a.NotAfter), a, true)
	if err != nil {
		return nil, fmt.Errorf("netio: probe group %s epoch %d: %w", a.Group, a.Epoch, err)
	}
	return conflict, nil
}

// Sight asks the link as Probe does, but only who claims an address counts, and not who asks for it: several nodes may look
// at once.
func (b *Binder) Sight(ctx context.Context, a core.Probe) (holder net.HardwareAddr, err error) {
	holder, err = b.probe(ctx, b.permit(a.Group, a.Epoch, a.NotAfter), a, false)
	if err != nil {
		return nil, fmt.Errorf("netio: look who holds group %s in epoch %d: %w", a.Group, a.Epoch, err)
	}
	return holder, nil
}

func (b *Binder) probe(ctx context.Context, p permit, a core.Probe, probes bool) (net.HardwareAddr, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	l, err := b.look(a.Spec)
	if err == nil {
		err = l.speakable()
	}
	if err != nil || l.silent() {
		return nil, err
	}
	own, err := b.ownMACs()
	if err != nil {
		return nil, err
	}
	heard, stop, err := hear(l, a.Spec, probes)
	if err != nil {
		return nil, err
	}
	defer stop()
	return b.question(ctx, p, l, a, own, heard)
}

// question sends the probes and waits for a stranger's claim.
func (b *Binder) question(ctx context.Context, p permit, l link, a core.Probe, own map[MAC]bool, heard <-chan hearing) (net.HardwareAddr, error) {
	end := time.NewTimer(a.For)
	defer end.Stop()
	ask := time.NewTicker(max(a.For/probeCount, 1))
	defer ask.Stop()
	for sent := 0; ; {
		if sent < probeCount {
			if err := b.sendAll(ctx, p, l, a.Spec, (*batch).probe); err != nil {
				return nil, err
			}
			sent++
		}
		for waiting := true; waiting; {
			select {
			case h := <-heard:
				if h.err != nil {
					return nil, fmt.Errorf("listen on %s: %w", l.Name, classify(h.err))
				}
				if !own[h.mac] {
					return h.mac.HardwareAddr(), nil
				}
			case <-ask.C:
				waiting = false
			case <-end.C:
				return nil, p.check()
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}
}

// probe adds the frame that asks who has an address.
func (b *batch) probe(mac MAC, ip netip.Addr) {
	if ip.Is6() {
		b.buf = ProbeNS(mac, ip).AppendFrame(b.buf)
	} else {
		b.buf = ProbeARP(mac, ip).AppendFrame(b.buf)
	}
	b.end()
}

// hear starts listening for claims to the group's addresses, and with probes for those of others. After stop nothing of it
// is left running.
func hear(l link, spec core.GroupSpec, probes bool) (heard <-chan hearing, stop func(), err error) {
	var open []*listener
	closeAll := func() (err error) {
		for _, h := range open {
			err = errors.Join(err, h.close())
		}
		return err
	}
	for _, ips := range byFamily(spec.Addresses) {
		h, err := listen(l, ips, probes)
		if err != nil {
			return nil, nil, errors.Join(err, closeAll())
		}
		open = append(open, h)
	}
	var wg sync.WaitGroup
	done := make(chan struct{})
	out := make(chan hearing)
	for _, h := range open {
		wg.Go(func() { h.pass(out, done) })
	}
	return out, func() {
		close(done)
		_ = closeAll() // read-only sockets
		wg.Wait()
	}, nil
}

// ownMACs returns the hardware addresses of all interfaces of this node.
func (b *Binder) ownMACs() (own map[MAC]bool, err error) {
	err = b.claims.use(func(s *session) error {
		links, err := s.links()
		own = macs(links)
		return err
	})
	return own, err
}

func macs(links []link) map[MAC]bool {
	own := make(map[MAC]bool, len(links))
	for _, l := range links {
		if l.Ethernet {
			own[l.MAC] = true
		}
	}
	return own
}
