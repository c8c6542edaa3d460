package netio

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-ha/remora/core"
)

// settleRounds bounds how often Bind takes over copies that turn up while it reads back.
const settleRounds = 3

// Bind adds every address of the group to its interface, marked as ours and with a.Lifetime rounded down to whole
// seconds, at least one, as its valid lifetime; for the preferred one see lifetimeOf. IPv6 addresses skip duplicate address
// detection; Probe is there for that. Copies that are bound already, by hand or on another interface, are taken over: they
// get mark and lifetime too. Bind returns nil only if it has read back that all of them are bound.
//
// When Bind fails, what it has bound until then stays, until Unbind or the end of its lifetime, except in one case: a
// Bind that finds itself late after a system call removes every copy that it has added, renewed or taken over, and
// returns ErrLate.
//
// With a fence, the addresses are guarded before they are bound, and it is opened for them once all are bound and the kernel
// takes what comes for them, see awaitLocal.
func (b *Binder) Bind(ctx context.Context, a core.Bind) error {
	err := b.guardAlso(a.Spec)
	if err == nil {
		err = b.claims.use(func(s *session) error {
			c, err := b.newClaim(s, b.permit(a.Group, a.Epoch, a.NotAfter), a.Spec, a.Lifetime)
			if err != nil {
				return err
			}
			b.forwarders.bound(a.Group, c.link)
			b.fresh.put(a.Group, a.Epoch, c.link)
			err = c.bind(ctx)
			if err == nil {
				s.awaitLocal(a.Spec.Addresses)
			}
			return c.unlessLate(err)
		})
	}
	if err == nil {
		if b.cfg.Bound != nil {
			b.cfg.Bound(a.Group, a.Epoch)
		}
		err = b.openFence(a)
	}
	if err != nil {
		return fmt.Errorf("netio: bind group %s epoch %d: %w", a.Group, a.Epoch, err)
	}
	return nil
}

// Extend renews the lifetime of the group's addresses that are bound and ours. It returns ErrAbsent if one of them is
// not bound on its interface, after it has renewed the others.
//
// Extend does not bring back an address that is gone, although the kernel adds what it is asked to replace and does not
// have. It first lists what is bound and replaces only that. An address that goes in between, because its lifetime is
// over or because somebody deletes it, is added by the replacement; then the kernel gives it a new creation stamp,
// which a mere renewal leaves alone. So Extend lists again, and removes what has another stamp than before. Stamps
// count hundredths of a second: only an address that was added, deleted and added again within one of these goes
// unnoticed. It does no harm, for the replacement was made within the lease and the epoch, or else it falls under the
// last rule: whatever Extend has touched is removed if the clock or the gate says, after the system call, that it was
// late. Killed between the two, it leaves an address that the kernel removes when its lifetime ends.
func (b *Binder) Extend(ctx context.Context, a core.Extend) error {
	err := b.claims.use(func(s *session) error {
		c, err := b.newClaim(s, b.permit(a.Group, a.Epoch, a.NotAfter), a.Spec, a.Lifetime)
		if err != nil {
			return err
		}
		return c.unlessLate(c.extend(ctx))
	})
	if err != nil {
		return fmt.Errorf("netio: extend group %s epoch %d: %w", a.Group, a.Epoch, err)
	}
	return nil
}

// Prolong moves the NotAfter of every Bind, Extend and Announce of an epoch that is on its way or comes, and the report by which
// a Bind opens the fence. It waits for nothing.
func (b *Binder) Prolong(a core.Prolong) { b.gate.prolong(a) }

// claim is one Bind or Extend on its way.
type claim struct {
	s       *session
	b       *Binder
	permit  permit
	link    link
	targets []netip.Prefix
	seconds uint32
	// touched are the copies that this claim has added, renewed or taken over.
	touched map[place]bool
}

func (b *Binder) newClaim(s *session, p permit, spec core.GroupSpec, life time.Duration) (*claim, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	l, err := s.link(b.cfg.Interface(spec))
	if err != nil {
		return nil, err
	}
	return &claim{s: s, b: b, permit: p, link: l, targets: spec.Addresses, seconds: wholeSeconds(life),
		touched: make(map[place]bool)}, nil
}

// wholeSeconds rounds down, because an address must rather go too early than too late, but not below the one second
// that is the shortest lifetime the kernel knows.
func wholeSeconds(d time.Duration) uint32 {
	return uint32(min(max(d/time.Second, 1), math.MaxUint32-1))
}

// unlessLate passes err on, except when the claim's time is over: then it takes back whatever the claim has done. The
// look at the clock comes after the last system call that claims.
func (c *claim) unlessLate(err error) error {
	late := c.permit.check()
	if late == nil {
		return err
	}
	if len(c.touched) > 0 {
		c.b.cfg.Logger.Warn("a late claim is taken back", "group", c.permit.group, "epoch", uint64(c.permit.epoch))
	}
	if undo := c.undo(func(address) bool { return true }); undo != nil {
		return fmt.Errorf("%w; and taking it back failed: %w", late, undo)
	}
	return late
}

// undo removes the touched copies that which picks, and reads back that they are gone.
func (c *claim) undo(which func(address) bool) error {
	if len(c.touched) == 0 {
		return nil
	}
	remove := func(s *session) error {
		_, err := removeAll(s, func(a address) bool { return c.touched[a.place()] && which(a) })
		return err
	}
	if c.s.broken {
		return c.b.claims.use(remove)
	}
	return remove(c.s)
}

// bind adds what is missing, then takes over and reads back until nothing is left to do.
func (c *claim) bind(ctx context.Context) error {
	existed := make(map[netip.Addr]bool)
	done := 0
	for part := range slices.Chunk(c.targets, changesAtOnce) {
		rest(done)
		if err := c.add(ctx, part, existed); err != nil {
			return err
		}
		done += len(part)
	}
	for range settleRounds {
		found, err := c.s.copies(c.targets)
		if err != nil {
			return err
		}
		todo := c.foreign(found, existed)
		if len(todo) == 0 {
			return c.confirm(found)
		}
		if err := c.renew(ctx, todo); err != nil {
			return err
		}
	}
	return errors.New("addresses keep changing while they are bound: somebody else manages them too")
}

// add adds addresses to the claim's interface, and notes which existed already, which is no error.
func (c *claim) add(ctx context.Context, ps []netip.Prefix, existed map[netip.Addr]bool) error {
	as := make([]address, len(ps))
	for i, p := range ps {
		as[i] = c.wanted(p)
	}
	if err := c.allowed(ctx); err != nil {
		return err
	}
	verdicts, err := c.touch(as, c.s.addAll)
	if err != nil {
		return fmt.Errorf("add %d addresses to %s: %w", len(ps), c.link.Name, err)
	}
	for i, p := range ps {
		switch v := verdicts[i]; {
		case errors.Is(v, unix.EEXIST):
			existed[p.Addr()] = true
		case v != nil:
			err = cmp.Or(err, fmt.Errorf("add %v to %s: %w", p, c.link.Name, v))
		}
	}
	return err
}

// touch makes a system call that claims. An address counts as touched unless the kernel has refused it: without an answer
// it may have been added all the same.
func (c *claim) touch(as []address, call func([]address) ([]error, error)) ([]error, error) {
	verdicts, err := call(as)
	for i, a := range as {
		if err == nil && verdicts[i] == nil || c.s.broken {
			c.touched[a.place()] = true
		}
	}
	return verdicts, err
}

// wanted is the address that the claim adds for p.
func (c *claim) wanted(p netip.Prefix) address {
	a := address{Index: c.link.Index, Local: p.Addr(), Peer: p.Addr(), Bits: p.Bits(), Scope: scopeUniverse,
		Proto: MarkProtocol, Expiry: c.lifetimeOf(p.Addr())}
	if p.Addr().Is6() {
		a.Flags = ifaFlagNoDAD
		return a
	}
	if l := c.link.Name + ":" + c.b.cfg.Label; c.b.cfg.Label != "" && len(l) <= labelMax {
		a.Label = l
	}
	return a
}

// lifetimeOf is what the kernel holds of the claim's lease. An IPv6 address is deprecated from the start (RFC 4862, 5.5.4):
// it answers like any other, but what connects from this node without naming an address does not come from it. Of two
// addresses the kernel takes the one that has more bits in common with the destination (RFC 6724, 5, rule 8), which is a /128
// and not the node's own; such connections, a replica's to its source among them, would end when the address moves.
func (c *claim) lifetimeOf(ip netip.Addr) lifetime {
	if ip.Is6() {
		return lifetime{Valid: c.seconds}
	}
	return lifetime{Preferred: c.seconds, Valid: c.seconds}
}

// allowed is the last look before a system call that claims.
func (c *claim) allowed(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return c.permit.check()
}

// foreign picks the copies that still need mark and lifetime: those that are not ours, and ours from an earlier bind.
func (c *claim) foreign(found []address, existed map[netip.Addr]bool) []address {
	var todo []address
	for _, a := range found {
		if !c.touched[a.place()] && (existed[a.Local] || !a.ours(c.b.cfg.Label)) {
			todo = append(todo, a)
		}
	}
	return todo
}

// renew gives copies that are bound our mark and the claim's lifetime, and leaves all else about them as it is.
func (c *claim) renew(ctx context.Context, copies []address) error {
	done := 0
	for part := range slices.Chunk(copies, changesAtOnce) {
		rest(done)
		done += len(part)
		if err := c.allowed(ctx); err != nil {
			return err
		}
		as := slices.Clone(part)
		for i, a := range as {
			if !a.ours(c.b.cfg.Label) {
				c.b.cfg.Logger.Info("an address that was bound by somebody else is taken over", "group", c.permit.group,
					"epoch", uint64(c.permit.epoch), "address", a.prefix(), "interface_index", a.Index)
			}
			as[i].Proto, as[i].Flags = MarkProtocol, a.Flags&ifaFlagsKept
			as[i].Expiry = c.lifetimeOf(a.Local)
		}
		verdicts, err := c.touch(as, c.s.replaceAll)
		if err != nil {
			return fmt.Errorf("renew %d addresses: %w", len(as), err)
		}
		for i, v := range verdicts {
			if v != nil {
				return fmt.Errorf("renew %s: %w", where(as[i:i+1]), v)
			}
		}
	}
	return nil
}

// confirm reports what of the targets was not read back on the claim's interface.
func (c *claim) confirm(found []address) error {
	standing := c.standing(found)
	for _, p := range c.targets {
		a, ok := standing[stand(p)]
		if !ok {
			return fmt.Errorf("add %v to %s: it was gone when it was read back", p, c.link.Name)
		}
		if !a.ours(c.b.cfg.Label) {
			c.b.unmarked.Do(func() {
				c.b.cfg.Logger.Warn("this kernel does not mark addresses (Linux 5.18 does): what a killed process leaves "+
					"behind goes only when its lifetime ends", slog.Any("address", p))
			})
		}
	}
	return nil
}

// standing returns the copies on the claim's interface by what adding them would collide with.
func (c *claim) standing(found []address) map[netip.Prefix]address {
	m := make(map[netip.Prefix]address, len(found))
	for _, a := range found {
		if a.on(c.link.Index) {
			m[stand(a.prefix())] = a
		}
	}
	return m
}

// stand is what p takes up on an interface, see sameOn.
func stand(p netip.Prefix) netip.Prefix {
	if p.Addr().Is6() {
		return netip.PrefixFrom(p.Addr(), p.Addr().BitLen())
	}
	return p
}

// extend renews what is bound and ours, and removes again what came back from the dead by that.
func (c *claim) extend(ctx context.Context) error {
	before, err := c.s.copies(c.targets)
	if err != nil {
		return err
	}
	missing := c.missing(before)
	renewable := slices.DeleteFunc(slices.Clone(before), func(a address) bool { return !c.renewable(a) })
	if err := c.renew(ctx, renewable); err != nil {
		return err
	}
	after, err := c.s.copies(c.targets)
	if err != nil {
		return err
	}
	if err := c.buryRisen(before, after); err != nil {
		return err
	}
	if missing == nil {
		missing = c.missing(after)
	}
	return missing
}

// renewable reports whether Extend may renew a copy: it is ours, or it stands where ours must be on a kernel that does
// not mark, where a lifetime is all that tells it from an address that somebody bound by hand.
func (c *claim) renewable(a address) bool {
	if a.ours(c.b.cfg.Label) {
		return true
	}
	if a.Proto != 0 || a.permanent() {
		return false
	}
	for _, p := range c.targets {
		if a.sameOn(c.link.Index, p) {
			return true
		}
	}
	return false
}

// missing returns an ErrAbsent if a target does not stand on the claim's interface as something that Extend renews.
func (c *claim) missing(found []address) error {
	standing := c.standing(found)
	for _, p := range c.targets {
		if a, ok := standing[stand(p)]; !ok || !c.renewable(a) {
			return fmt.Errorf("extend %v on %s: %w", p, c.link.Name, ErrAbsent)
		}
	}
	return nil
}

// buryRisen removes the copies whose creation stamp differs from before: the renewal has added them.
func (c *claim) buryRisen(before, after []address) error {
	stamps := make(map[place]uint32, len(before))
	for _, a := range before {
		stamps[a.place()] = a.Expiry.Created
	}
	risen := func(a address) bool { return a.Expiry.Created != stamps[a.place()] }
	for _, a := range after {
		if !c.touched[a.place()] || !risen(a) {
			continue
		}
		gone := fmt.Errorf("extend %s: %w any more", where([]address{a}), ErrAbsent)
		if err := c.undo(risen); err != nil {
			return errors.Join(gone, err)
		}
		return gone
	}
	return nil
}
