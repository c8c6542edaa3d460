package lab

import (
	"net/netip"
	"slices"
	"time"
)

// AddrEvent is an address that a node got or lost. The order of a slice of them is the kernel's own.
type AddrEvent struct {
	Time  time.Time // when the event was read
	Node  string
	Addr  netip.Addr
	Added bool
	// Valid is the lifetime that the kernel gives the address; zero means forever.
	Valid time.Duration
}

// Holding is a time for which a node held an address. To is zero while it still does.
type Holding struct {
	Node     string
	From, To time.Time
}

// Overlap is a time for which two nodes or more held an address at once. To is zero while they still do.
type Overlap struct {
	Addr     netip.Addr
	Nodes    []string
	From, To time.Time
}

// Holdings returns who held addr when, in the order of the beginnings. A repeated addition is a change of an address
// that is there, and a repeated removal is none.
func Holdings(events []AddrEvent, addr netip.Addr) []Holding {
	var hs []Holding
	open := map[string]int{}
	for _, e := range events {
		i, held := open[e.Node]
		switch {
		case e.Addr != addr:
		case e.Added && !held:
			open[e.Node] = len(hs)
			hs = append(hs, Holding{Node: e.Node, From: e.Time})
		case !e.Added && held:
			hs[i].To = e.Time
			delete(open, e.Node)
		}
	}
	return hs
}

// Overlaps returns the times for which two nodes or more held addr at once, judged by the order of the events alone:
// two events with the same time stamp do not hide an overlap.
func Overlaps(events []AddrEvent, addr netip.Addr) []Overlap {
	var found []Overlap
	var holders []string
	open := false
	for _, e := range events {
		if e.Addr != addr {
			continue
		}
		holders = withHolder(holders, e.Node, e.Added)
		switch many := len(holders) > 1; {
		case many && !open:
			open = true
			found = append(found, Overlap{Addr: addr, Nodes: slices.Clone(holders), From: e.Time})
		case many:
			last := &found[len(found)-1]
			last.Nodes = mergeNames(last.Nodes, holders)
		case open:
			open = false
			found[len(found)-1].To = e.Time
		}
	}
	return found
}

// Unowned returns the longest time between from and to for which nobody held addr.
func Unowned(events []AddrEvent, addr netip.Addr, from, to time.Time) time.Duration {
	var longest time.Duration
	var holders []string
	free := from
	isFree := true
	for _, e := range events {
		if e.Addr != addr || e.Time.After(to) {
			continue
		}
		holders = withHolder(holders, e.Node, e.Added)
		switch none := len(holders) == 0; {
		case none && !isFree:
			free, isFree = e.Time, true
		case !none && isFree:
			longest, isFree = max(longest, e.Time.Sub(later(free, from))), false
		}
	}
	if isFree {
		longest = max(longest, to.Sub(later(free, from)))
	}
	return longest
}

// Changes counts the times between from and to at which a node got addr that was not the last to get it.
func Changes(events []AddrEvent, addr netip.Addr, from, to time.Time) int {
	changes, last := 0, ""
	for _, e := range events {
		if e.Addr != addr || !e.Added || e.Node == last {
			continue
		}
		if last != "" && !e.Time.Before(from) && !e.Time.After(to) {
			changes++
		}
		last = e.Node
	}
	return changes
}

// Losses returns the holdings that ended between from and to, also those of nodes that got addr again.
func Losses(events []AddrEvent, addr netip.Addr, from, to time.Time) []Holding {
	var lost []Holding
	for _, h := range Holdings(events, addr) {
		if !h.To.IsZero() && !h.To.Before(from) && !h.To.After(to) {
			lost = append(lost, h)
		}
	}
	return lost
}

// Shared returns for how long between from and to two nodes or more held addr.
func Shared(events []AddrEvent, addr netip.Addr, from, to time.Time) time.Duration {
	var shared time.Duration
	for _, o := range Overlaps(events, addr) {
		end := o.To
		if end.IsZero() || end.After(to) {
			end = to
		}
		shared += max(0, end.Sub(later(o.From, from)))
	}
	return shared
}

// withHolder returns the holders after a node got or lost the address.
func withHolder(holders []string, node string, added bool) []string {
	i := slices.Index(holders, node)
	switch {
	case added && i < 0:
		return append(holders, node)
	case !added && i >= 0:
		return slices.Delete(holders, i, i+1)
	}
	return holders
}

func mergeNames(a, b []string) []string {
	for _, n := range b {
		if !slices.Contains(a, n) {
			a = append(a, n)
		}
	}
	return a
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
