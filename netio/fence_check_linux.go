package netio

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// checkTries bounds how often the tables are read. A list that is read while a transaction changes it may have gaps.
const checkTries = 8

// readWait bounds the wait for a list.
const readWait = time.Second

// errTableGone is a loss that needs no second look.
var errTableGone = errors.New("the table is gone")

// Check reads the tables back: whether all chains, rules and guarded addresses are there. It returns [ErrFenceLost] if
// not, and changes nothing. A fence that is not installed is in order. Check takes a millisecond and more with many
// addresses, for which a Close waits.
func (f *Fence) Check() error {
	f.yieldMu.Lock()
	defer f.yieldMu.Unlock()
	if err := f.check(); err != nil {
		return fmt.Errorf("netio: fence: %w: %w", ErrFenceLost, err)
	}
	return nil
}

// repair restores what was lost, all closed, and passes the news on to Watch. The caller holds yieldMu.
func (f *Fence) repair() error {
	lost := f.check()
	if lost == nil {
		return nil
	}
	lost = fmt.Errorf("netio: fence: %w: %w", ErrFenceLost, lost)
	err := f.rebuild()
	if err != nil {
		lost = fmt.Errorf("%w, and can not be restored: %w", lost, err)
	}
	f.cfg.Logger.Warn("fence lost", "restored", err == nil, "error", lost)
	select {
	case f.losses <- lost:
	default: // the last one is still to be told
	}
	return err
}

// check compares the kernel's tables with what they should be. The caller holds yieldMu.
func (f *Fence) check() (err error) {
	if !f.state.isInstalled() {
		return nil
	}
	for range checkTries {
		if err = f.readBack(); err == nil || errors.Is(err, errTableGone) {
			break
		}
	}
	return err
}

func (f *Fence) readBack() error {
	if err := f.reads.open(); err != nil {
		return err
	}
	if err := f.reads.raw.SetReadDeadline(time.Now().Add(readWait)); err != nil {
		return err
	}
	if err := f.readAll(f.reads.conn); err != nil {
		return errors.Join(err, f.reads.drain())
	}
	return nil
}

func (f *Fence) readAll(c *nftables.Conn) error {
	for _, t := range f.tables.all() {
		have, err := c.ListTableOfFamily(t.Name, t.Family)
		if err != nil {
			return fmt.Errorf("%w: %w", errTableGone, err)
		}
		if have.Flags != 0 {
			return fmt.Errorf("table %s has flags %#x", t.Name, have.Flags)
		}
	}
	for _, ch := range f.tables.chains() {
		if ch.Device != "" && !f.state.stillThere(ch.Device) {
			continue // the kernel removes what hangs on an interface with it
		}
		if err := f.readChain(c, ch); err != nil {
			return fmt.Errorf("chain %s: %w", ch.Name, err)
		}
	}
	return f.readSets(c)
}

func (f *Fence) readChain(c *nftables.Conn, want *nftables.Chain) error {
	have, err := c.ListChain(want.Table, want.Name)
	if err != nil {
		return err
	}
	if want.Hooknum == nil {
		if have.Hooknum != nil {
			return errors.New("it is hooked in")
		}
	} else if have.Hooknum == nil || *have.Hooknum != *want.Hooknum || have.Priority == nil || *have.Priority != *want.Priority {
		return errors.New("it is hooked in elsewhere")
	}
	rules, err := c.GetRules(want.Table, want)
	if err != nil {
		return err
	}
	for _, r := range f.tables.rules {
		if r.Chain != want {
			continue
		}
		if len(rules) == 0 || !reflect.DeepEqual(rules[0].Exprs, asRead(r.Exprs)) {
			return errors.New("its rules were changed")
		}
		rules = rules[1:]
	}
	if len(rules) > 0 {
		return errors.New("it has more rules than ours")
	}
	return nil
}

// asRead returns expressions as the kernel tells them: without numbers that have a meaning in a transaction only.
func asRead(exprs []expr.Any) []expr.Any {
	read := make([]expr.Any, len(exprs))
	for i, e := range exprs {
		if l, ok := e.(*expr.Lookup); ok {
			l := *l
			l.SetID = 0
			e = &l
		}
		read[i] = e
	}
	return read
}

func (f *Fence) readSets(c *nftables.Conn) error {
	turn, err := c.GetSetElements(f.tables.turn)
	if err != nil {
		return fmt.Errorf("set turn: %w", err)
	}
	if len(turn) != 1 || !bytes.Equal(turn[0].Key, mark(f.state.currentTurn())) {
		return errors.New("set turn: it is not ours")
	}
	count := map[bool]int{}
	for _, a := range f.state.addresses() {
		count[a.Is4()]++
	}
	for _, s := range slices.Concat(f.tables.leases, f.tables.bundles) {
		if _, err := c.GetSetByName(s.Table, s.Name); err != nil {
			return fmt.Errorf("set %s: %w", s.Name, err)
		}
	}
	for _, s := range f.tables.addr4 {
		if err := f.readMap(c, s, count[true]); err != nil {
			return fmt.Errorf("map addr4: %w", err)
		}
	}
	for _, s := range f.tables.addr6 {
		if err := f.readMap(c, s, count[false]); err != nil {
			return fmt.Errorf("map addr6: %w", err)
		}
	}
	return nil
}

// readMap checks that the map has the n guarded addresses of its family and no other.
func (f *Fence) readMap(c *nftables.Conn, s *nftables.Set, n int) error {
	elements, err := c.GetSetElements(s)
	if err != nil {
		return err
	}
	var keys []netip.Addr
	for _, e := range elements {
		if a, ok := netip.AddrFromSlice(e.Key); ok {
			keys = append(keys, a)
		}
	}
	if len(elements) != n || len(f.state.still(keys)) != n {
		return fmt.Errorf("it has %d addresses and not the %d guarded ones", len(elements), n)
	}
	return nil
}
