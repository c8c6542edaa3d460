package netio

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/remora-ha/remora/core"
)

// removeRounds bounds how often Unbind removes and reads back before it leaves it to the caller to try again.
const removeRounds = 3

// Unbind removes every copy of the group's addresses, on whatever interface it is found and whoever bound it, and
// returns nil only if they were read back and are absent. It first shuts out all claims of this and earlier epochs of
// the group, for good, and closes the fence; see the package documentation. With a prefix length below /32 it is the
// kernel's habit to remove with the first address of a subnet all later ones too (sysctl promote_secondaries): bind with
// /32. The context carries values alone: giving up is not called off.
func (b *Binder) Unbind(_ context.Context, a core.Unbind) error {
	b.gate.close(a.Group, a.Epoch)
	b.forwarders.given(a.Group, a.Spec, b.cfg)
	b.closeFence(a.Spec)
	err := b.yields.use(func(s *session) error {
		wanted := setOf(a.Spec.Addresses)
		_, err := removeAll(s, func(c address) bool { return wanted[c.Local] })
		return err
	})
	if err != nil {
		return fmt.Errorf("netio: unbind group %s epoch %d: %w", a.Group, a.Epoch, err)
	}
	return nil
}

// RemoveLeftovers removes the addresses that carry our mark, on any interface, and returns them when they were read
// back and are absent. It is for the start of a process, before the first Bind.
func (b *Binder) RemoveLeftovers(_ context.Context) (removed []netip.Prefix, err error) {
	err = b.yields.use(func(s *session) error {
		removed, err = removeAll(s, func(c address) bool { return c.ours(b.cfg.Label) })
		return err
	})
	if err != nil {
		return removed, fmt.Errorf("netio: remove leftover addresses: %w", err)
	}
	return removed, nil
}

// removeAll removes every address that which picks until it reads back that there is none, and returns what it removed.
func removeAll(s *session, which func(address) bool) (removed []netip.Prefix, err error) {
	var failed error
	for round := 0; ; round++ {
		all, err := s.addresses()
		if err != nil {
			return removed, errors.Join(err, failed)
		}
		left := slices.DeleteFunc(all, func(a address) bool { return !which(a) })
		if len(left) == 0 {
			return removed, nil
		}
		if round == removeRounds {
			return removed, errors.Join(fmt.Errorf("%w: %s", ErrStillBound, where(left)), failed)
		}
		failed = nil
		done := 0
		for part := range slices.Chunk(left, changesAtOnce) {
			rest(done)
			done += len(part)
			verdicts, err := s.removeAll(part)
			if err != nil {
				return removed, errors.Join(fmt.Errorf("remove %d addresses: %w", len(part), err), failed)
			}
			for i, a := range part {
				if verdicts[i] != nil {
					failed = errors.Join(failed, fmt.Errorf("remove %s: %w", where([]address{a}), verdicts[i]))
					continue
				}
				removed = append(removed, a.prefix())
			}
		}
	}
}

// where says which addresses are bound on which interface indexes.
func where(as []address) string {
	var text []byte
	for i, a := range as {
		if i > 0 {
			text = append(text, ", "...)
		}
		text = fmt.Appendf(text, "%v on interface number %d", a.prefix(), a.Index)
	}
	return string(text)
}
