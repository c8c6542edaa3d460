package netio

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/remora-ha/remora/core"
)

// Config says how a Binder works. The zero value is usable.
type Config struct {
	// Interface names the interface of a group on this node. Nil means the one of the group's specification.
	Interface func(core.GroupSpec) string
	// Clock is the lease clock, by default [Boottime]. It must be the one that NotAfter instants are readings of.
	Clock func() core.Instant
	// Fence holds the leases in the kernel: it opens when an address is bound and closes before it is unbound. Guard installs
	// it, if nobody has. Nil means that there is none.
	Fence *Fence
	// Bound, if set, is called by Bind when all addresses are bound and were read back, before the fence is opened for them.
	// It must not block.
	Bound func(group core.GroupName, epoch core.Epoch)
	// Pace is how fast the announcements of many addresses are sent.
	Pace Pace
	// Left, if set, takes the connections that are left when an address has moved and the kernel can not end them
	// ([ErrNoDestroy]). It is called once the next owner has announced itself and must not block. Without it they are logged.
	Left func(Leftover)
	// NoDestroy takes it for granted that the kernel can not end connections, and does not try.
	NoDestroy bool
	// Label makes IPv4 addresses appear as "interface:label" in old tools. It is left out where that would be longer
	// than the 15 bytes that the kernel takes. On kernels before 5.18 it is also how leftovers are found.
	Label string
	// Logger gets what no caller is told: takeovers of addresses bound by hand, late claims taken back. Nil means silence.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	c.Interface = orSpec(c.Interface)
	if c.Clock == nil {
		c.Clock = Boottime
	}
	c.Pace = c.Pace.withDefaults()
	c.Logger = orDiscard(c.Logger)
	return c
}

func orSpec(f func(core.GroupSpec) string) func(core.GroupSpec) string {
	if f != nil {
		return f
	}
	return func(g core.GroupSpec) string { return g.Interface }
}

func orDiscard(l *slog.Logger) *slog.Logger {
	if l != nil {
		return l
	}
	return slog.New(slog.DiscardHandler)
}

// Binder carries out what core wants done to addresses and on the link. Its methods may be called from several
// goroutines at once, also for the same group.
type Binder struct {
	cfg  Config
	gate gate
	// claims and yields are apart so that giving up finds a socket ready, whatever the claims are stuck in.
	claims, yields pool
	senders        senders
	forwarders     forwarders
	fresh          freshLinks
	guarded        guarded
	armRoom        atomic.Pointer[armRoom]
	unmarked       sync.Once // the warning that the kernel does not mark addresses was given
}

// NewBinder returns a Binder. It fails if the kernel gives it no netlink socket.
func NewBinder(cfg Config) (*Binder, error) {
	b := &Binder{cfg: cfg.withDefaults()}
	for _, p := range []*pool{&b.claims, &b.yields} {
		s, err := newSession()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("netio: %w", err), b.Close())
		}
		p.put(s)
	}
	return b, nil
}

// Close closes the Binder's sockets. It does not remove addresses.
func (b *Binder) Close() error {
	b.forwarders.close()
	return errors.Join(b.claims.close(), b.yields.close(), b.senders.close())
}

func (b *Binder) permit(group core.GroupName, epoch core.Epoch, notAfter core.Instant) permit {
	return permit{group: group, epoch: epoch, notAfter: notAfter, clock: b.cfg.Clock, gate: &b.gate}
}

// Present reports whether ip is bound on any interface, and whether every copy of it carries our mark. An error means
// that it is not known.
func (b *Binder) Present(_ context.Context, ip netip.Addr) (present, ours bool, err error) {
	err = b.yields.use(func(s *session) error {
		found, err := s.copies([]netip.Prefix{netip.PrefixFrom(ip, ip.BitLen())})
		present, ours = presence(found, ip, b.cfg.Label)
		return err
	})
	if err != nil {
		return false, false, fmt.Errorf("netio: look for %v: %w", ip, err)
	}
	return present, ours, nil
}

// presence reports whether ip is among the addresses, and whether every copy is ours.
func presence(among []address, ip netip.Addr, label string) (present, ours bool) {
	ours = true
	for _, a := range among {
		if a.is(ip) {
			present = true
			ours = ours && a.ours(label)
		}
	}
	return present, present && ours
}
