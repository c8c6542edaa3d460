package consensus

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/remora-ha/remora/core"
)

// vClock is a lease clock, whose rate is up to 1 % wrong.
type vClock struct {
	from time.Time
	ppm  int64
}

func (c vClock) now() core.Instant { return c.at(time.Now()) }

func (c vClock) at(t time.Time) core.Instant {
	d := int64(t.Sub(c.from))
	return core.Instant(int64(time.Hour) + d + d*c.ppm/1e6)
}

// when returns the true time at which the clock reads i, or a microsecond later.
func (c vClock) when(i core.Instant) time.Time {
	d := int64(i) - int64(time.Hour)
	return c.from.Add(time.Duration(d*1e6/(1e6+c.ppm)) + time.Microsecond)
}

// vKernel is the kernel of a machine as netio drives it: addresses, and the fence that holds their leases. It outlives
// the process. It is a binder and announcer for one process after the other.
type vKernel struct {
	m *machine

	mu    sync.Mutex
	armed map[core.Seq]time.Time // when a report dies
	addrs map[core.GroupName]*vAddress
	slow  time.Duration // how long a call takes
	hangs time.Time     // until then no unbind comes back
}

// vAddress is the address of a group.
type vAddress struct {
	bound  bool
	report core.Seq  // what the fence makes it point to
	shut   time.Time // when it was closed last
}

var (
	errLate   = errors.New("the time for it is over")
	errAbsent = errors.New("the address is gone")
)

func newKernel(m *machine) *vKernel {
	k := &vKernel{m: m, armed: map[core.Seq]time.Time{}, addrs: map[core.GroupName]*vAddress{}, slow: time.Millisecond}
	for _, g := range m.c.config.Groups {
		k.addrs[g.Name] = &vAddress{}
	}
	return k
}

// answers reports whether the machine answers for the address of a group.
func (k *vKernel) answers(g core.GroupName) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	a := k.addrs[g]
	return a.bound && time.Now().Before(k.armed[a.report])
}

// call takes the time of a system call and does its work in the middle, unless the process has died.
func (k *vKernel) call(p *process, work func() error) error {
	k.mu.Lock()
	half := k.slow / 2
	k.mu.Unlock()
	time.Sleep(half)
	k.mu.Lock()
	err := errKilled
	if p.alive() {
		err = work()
	}
	k.mu.Unlock()
	k.m.c.oracle.look()
	time.Sleep(half)
	if !p.alive() {
		return errKilled
	}
	return err
}

// open makes an address point to a report, unless it was closed since the claim began. The caller holds the lock.
func (a *vAddress) open(seq core.Seq, since time.Time) {
	if a.shut.Before(since) {
		a.report = seq
	}
}

// clear is what a process does at its start: nothing of an earlier one is left, and the fence is new and closed.
func (k *vKernel) clear() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.armed)
	for _, a := range k.addrs {
		*a = vAddress{shut: time.Now()}
	}
}

// vBinder is the kernel in the hands of one process.
type vBinder struct {
	k *vKernel
	p *process
}

func (b vBinder) Arm(_ context.Context, a core.Arm) error {
	began := time.Now()
	err := b.k.call(b.p, func() error {
		ttl := a.TTL
		if b.k.m.c.broken.generous {
			ttl *= 2
		}
		b.k.armed[a.Seq] = b.k.m.clock.when(b.k.m.clock.now().Add(ttl))
		delete(b.k.armed, a.Seq-256)
		for _, o := range a.Open {
			b.k.addrs[o.Group].open(o.Report, began)
		}
		return nil
	})
	b.k.m.c.oracle.sent(b.p, a.Seq)
	return err
}

func (b vBinder) Bind(_ context.Context, a core.Bind) error {
	began := time.Now()
	return b.k.call(b.p, func() error {
		if b.k.m.clock.now() > a.NotAfter {
			return errLate
		}
		addr := b.k.addrs[a.Group]
		addr.bound = true
		addr.open(a.Report, began)
		b.k.m.c.trace(b.k.m, "binds %s in epoch %d", a.Group, a.Epoch)
		return nil
	})
}

func (b vBinder) Extend(_ context.Context, a core.Extend) error {
	return b.k.call(b.p, func() error {
		if !b.k.addrs[a.Group].bound {
			return errAbsent
		}
		return nil
	})
}

// Prolong has no need of anything: no claim here takes longer than a lease that is renewed.
func (vBinder) Prolong(core.Prolong) {}

func (b vBinder) Unbind(ctx context.Context, a core.Unbind) error {
	if lazy := b.k.m.c.broken.lazyUnbind; lazy > 0 {
		time.AfterFunc(lazy, func() { _ = b.unbind(a) })
		return nil
	}
	b.k.mu.Lock()
	if b.p.alive() {
		b.k.addrs[a.Group].report, b.k.addrs[a.Group].shut = 0, time.Now() // the fence first; it needs nobody's lock
	}
	hangs := time.Until(b.k.hangs)
	b.k.mu.Unlock()
	if hangs > 0 && !sleep(ctx, hangs) {
		return ctx.Err()
	}
	return b.unbind(a)
}

func (b vBinder) unbind(a core.Unbind) error {
	return b.k.call(b.p, func() error {
		*b.k.addrs[a.Group] = vAddress{shut: time.Now()}
		b.k.m.c.trace(b.k.m, "unbinds %s of epoch %d", a.Group, a.Epoch)
		return nil
	})
}

// Probe finds nobody, so that what another node answers wrongly is left to the oracle.
func (b vBinder) Probe(ctx context.Context, a core.Probe) (net.HardwareAddr, error) {
	if !sleep(ctx, a.For) {
		return nil, ctx.Err()
	}
	return nil, nil
}

func (vBinder) Announce(context.Context, core.Announce) error { return nil }
func (vBinder) Late(err error) bool                           { return errors.Is(err, errLate) }
func (vBinder) Absent(err error) bool                         { return errors.Is(err, errAbsent) }

// vPrefix is the address of a group.
func vPrefix(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, 1, byte(100 + i)}), 32)
}
