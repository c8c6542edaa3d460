package netio

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
)

// leftTable is a table that an earlier process's fence has left, and what it keeps closed.
type leftTable struct {
	*nftables.Table
	guards []netip.Addr
}

func (t leftTable) String() string { return familyName(t.Family) + " " + t.Name }

// RemoveFenceLeftovers removes the tables of the default name [FenceTable] that the fence of an earlier process left, and
// returns them as nft(8) names them, like "inet remora". It is for the start of a process that has no fence itself, after
// RemoveLeftovers: the tables keep closed what nobody would open any more. It fails with [ErrStillBound] and removes
// nothing if an address that they guard is bound, since that one would answer. A table of that name without the fence's
// sets is not ours and stays. A kernel without nf_tables has none.
func (b *Binder) RemoveFenceLeftovers(_ context.Context) (removed []string, err error) {
	s := &fenceSocket{ports: &fencePorts{}}
	left, err := b.leftTables(s)
	if err == nil {
		err = b.removeTables(s, left)
	}
	if err = errors.Join(err, s.close()); err != nil {
		return nil, fmt.Errorf("netio: remove leftover tables of the fence: %w", err)
	}
	for _, t := range left {
		removed = append(removed, t.String())
	}
	return removed, nil
}

func (b *Binder) removeTables(s *fenceSocket, left []leftTable) error {
	if len(left) == 0 {
		return nil
	}
	guarded := make(map[netip.Addr]bool)
	for _, t := range left {
		for _, a := range t.guards {
			guarded[a] = true
		}
	}
	err := b.yields.use(func(s *session) error {
		bound, err := s.addresses()
		if err != nil {
			return err
		}
		if bound = slices.DeleteFunc(bound, func(a address) bool { return !guarded[a.Local] }); len(bound) > 0 {
			return fmt.Errorf("%w: %s, and would answer", ErrStillBound, where(bound))
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = s.commit(func(b *fenceBatch) {
		for _, t := range left {
			b.drop(t.Table)
		}
	})
	if err != nil {
		return fmt.Errorf("remove %v: %w", left, err)
	}
	return nil
}

// leftTables finds the tables of a fence. Lists are read again if a transaction of somebody else fell into them.
func (b *Binder) leftTables(s *fenceSocket) (left []leftTable, err error) {
	if err := s.open(); err != nil {
		if errors.Is(lacking(err), ErrNoFence) {
			return nil, nil
		}
		return nil, err
	}
	for range checkTries {
		if err = s.raw.SetReadDeadline(time.Now().Add(readWait)); err != nil {
			return nil, err
		}
		if left, err = b.listLeft(s.conn); err == nil || errors.Is(err, ErrNoFence) || errors.Is(err, ErrPermission) {
			break
		}
		if err = errors.Join(err, s.drain()); s.conn == nil {
			break
		}
	}
	if errors.Is(err, ErrNoFence) {
		return nil, nil
	}
	return left, err
}

func (b *Binder) listLeft(c *nftables.Conn) (left []leftTable, err error) {
	all, err := c.ListTables()
	if err != nil {
		return nil, fmt.Errorf("list the tables: %w", classify(lacking(err)))
	}
	for _, t := range all {
		if t.Name != FenceTable || familyName(t.Family) == "" {
			continue
		}
		l, ours, err := readLeft(c, t)
		if err != nil {
			return nil, fmt.Errorf("read the table %v: %w", l, err)
		}
		if !ours {
			b.cfg.Logger.Warn("a table has the name of the fence's and not its sets: it is left as it is", "table", l)
			continue
		}
		left = append(left, l)
	}
	return left, nil
}

// readLeft reads what a table guards. It is ours if it has the sets that every table of the fence has.
func readLeft(c *nftables.Conn, t *nftables.Table) (l leftTable, ours bool, err error) {
	l.Table = t
	sets, err := c.GetSets(t)
	if err != nil {
		return l, false, err
	}
	has := func(name string, right func(*nftables.Set) bool) bool {
		return slices.ContainsFunc(sets, func(s *nftables.Set) bool { return s.Name == name && right(s) })
	}
	if !has("leases", func(s *nftables.Set) bool { return s.HasTimeout }) || !has("addr4", func(s *nftables.Set) bool { return s.IsMap }) {
		return l, false, nil
	}
	for _, s := range sets {
		if s.Name != "addr4" && s.Name != "addr6" {
			continue
		}
		elements, err := c.GetSetElements(s)
		if err != nil {
			return l, true, fmt.Errorf("map %s: %w", s.Name, err)
		}
		for _, e := range elements {
			if a, ok := netip.AddrFromSlice(e.Key); ok {
				l.guards = append(l.guards, a)
			}
		}
	}
	return l, true, nil
}

// familyName is what nft(8) calls a family in which the fence has tables, and empty for others.
func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyINet:
		return "inet"
	case nftables.TableFamilyARP:
		return "arp"
	case nftables.TableFamilyNetdev:
		return "netdev"
	}
	return ""
}
