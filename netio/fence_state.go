package netio

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// fenceState is what a Fence remembers. Its lock is never held over I/O.
type fenceState struct {
	mu        sync.Mutex
	installed bool
	// guarded has, for each guarded address, the generation at which it was last given up.
	guarded map[netip.Addr]uint64
	bundles bundles
	// ending has the addresses that a Close on its way was made for. A claim that is made meanwhile leaves them out, because the
	// Close does not know what it would make them point to.
	ending map[netip.Addr]bool
	// generation counts the acts of giving up, turn is the number in the kernel that each of them replaces.
	generation uint64
	turn       uint32
	armed      uint64 // the highest report number armed
	// frames has the interfaces on which frames are guarded, as they were when that was asked for.
	frames map[string]hookedInterface
	// used is the memory of the plan before, which the next one takes.
	used claimPlan
}

// now returns the generation. What is given up from here on is not opened by a claim that begins now.
func (s *fenceState) now() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.generation
}

// shut marks addresses as given up, and returns those that are guarded.
func (s *fenceState) shut(addrs []netip.Addr) (guarded []netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.generation++
	for _, a := range addrs {
		a = plainAddr(a)
		if _, ok := s.guarded[a]; ok {
			s.guarded[a] = s.generation
			guarded = append(guarded, a)
		}
	}
	s.bundles.give(guarded, s.generation)
	return guarded
}

// closing says how guarded addresses are closed: the bundles that are to point to no report, and the addresses that are to point
// to no bundle. What is closed already is left out. Until closed is called no claim is made for them.
func (s *fenceState) closing(guarded []netip.Addr) (numbers []uint32, single []netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = make(map[netip.Addr]bool, len(guarded))
	for _, a := range guarded {
		s.ending[a] = true
	}
	whole, single := s.bundles.split(guarded)
	for _, have := range whole {
		numbers = append(numbers, have.number)
	}
	return numbers, single
}

// closed is called when what closing has said was carried out, or all addresses were closed.
func (s *fenceState) closed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = nil
}

// loose returns the sets of guarded addresses of which none is in a bundle.
func (s *fenceState) loose(sets [][]netip.Addr) (loose []FenceOpening) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, set := range sets {
		if !slices.ContainsFunc(set, func(a netip.Addr) bool {
			a = plainAddr(a)
			_, ok := s.guarded[a]
			return !ok || s.bundles.of[a] != nil
		}) {
			loose = append(loose, FenceOpening{Addrs: set, Report: closedNumber})
		}
	}
	return loose
}

// shutAll marks all guarded addresses as given up.
func (s *fenceState) shutAll() { s.shut(s.addresses()) }

// still returns those of the addresses that are guarded.
func (s *fenceState) still(addrs []netip.Addr) []netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool {
		_, ok := s.guarded[a]
		return !ok
	})
}

func (s *fenceState) addresses() []netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.guarded))
}

// plan returns what a claim that began at generation since has to do to open these addresses. Those that were given up in
// the meantime are left out. A plan is good until the next one is made.
func (s *fenceState) plan(open []FenceOpening, since uint64) (p claimPlan, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.installed {
		return p, fmt.Errorf("%w: it is not installed", ErrNotGuarded)
	}
	p = claimPlan{turn: s.turn, built: s.bundles.built, numbers: s.used.numbers, kept: s.used.kept[:0],
		remove: append(s.used.remove[:0], s.bundles.stale...)}
	if p.numbers == nil {
		p.numbers = make(map[uint32]uint64)
	}
	clear(p.numbers)
	for _, o := range open {
		if b := s.bundles.whole(o.Addrs, since); b != nil && !s.ending[b.members[0]] {
			p.numbers[b.number], p.kept = o.Report, append(p.kept, b.number)
			continue
		}
		made := &bundle{number: s.bundles.next(), asked: slices.Clone(o.Addrs)}
		for _, a := range o.Addrs {
			a = plainAddr(a)
			given, ok := s.guarded[a]
			switch {
			case !ok:
				return p, fmt.Errorf("%w: %v", ErrNotGuarded, a)
			case given > since || s.ending[a]:
				p.left = append(p.left, a)
			case p.to[a] == 0:
				if p.to == nil {
					p.to = make(map[netip.Addr]uint32, len(o.Addrs))
				}
				p.to[a] = made.number
				made.members, made.given = append(made.members, a), max(made.given, given)
			}
		}
		if len(made.members) > 0 {
			p.numbers[made.number] = o.Report
			p.made = append(p.made, made)
		}
	}
	s.bundles.abandon(&p)
	if len(p.to) > 0 {
		s.bundles.doubt(maps.Keys(p.to))
	}
	s.used = claimPlan{numbers: p.numbers, kept: p.kept, remove: p.remove}
	return p, nil
}

// carried takes note of a claim that began at generation since and was carried out.
func (s *fenceState) carried(p claimPlan, since uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.bundles.carried(p) {
		return
	}
	for _, b := range p.made {
		for _, a := range b.members {
			if given, ok := s.guarded[a]; !ok || given > since {
				b.torn = true
			}
		}
	}
}

// forget is called when it is not known what bundles the kernel has.
func (s *fenceState) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bundles.reset()
	s.bundles.doubt(maps.Keys(s.guarded))
}

// rebuilt takes note of new tables, in which all addresses are closed.
func (s *fenceState) rebuilt(turn uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn = turn
	s.bundles.reset()
}

// mayArm checks the numbers of a claim that arms a report.
func (s *fenceState) mayArm(seq uint64, ttl time.Duration, open []FenceOpening) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ttl < MinFenceTTL {
		return fmt.Errorf("a lease of %v is shorter than %v", ttl, MinFenceTTL)
	}
	if seq <= s.armed {
		return fmt.Errorf("%w: report %d comes after %d", ErrReportOrder, seq, s.armed)
	}
	for _, o := range open {
		if o.Report == closedNumber || o.Report >= seq {
			return fmt.Errorf("%w: %d addresses are to rest on report %d, which can not have been answered before report %d is sent",
				ErrReportOrder, len(o.Addrs), o.Report, seq)
		}
	}
	return nil
}

// mayOpen checks the number of a claim that rests on an earlier report.
func (s *fenceState) mayOpen(seq uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if seq == closedNumber || seq > s.armed {
		return fmt.Errorf("%w: report %d was not armed, the last one was %d", ErrReportOrder, seq, s.armed)
	}
	return nil
}

func (s *fenceState) setArmed(seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed = seq
}

func (s *fenceState) currentTurn() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.turn
}

func (s *fenceState) setTurn(turn uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn = turn
}

func (s *fenceState) isInstalled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.installed
}

// set replaces the guarded addresses. Those that were not guarded before count as given up just now.
func (s *fenceState) set(addrs map[netip.Addr]bool, installed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.generation++
	guarded := make(map[netip.Addr]uint64, len(addrs))
	for a := range addrs {
		given, ok := s.guarded[a]
		if !ok {
			given = s.generation
		}
		guarded[a] = given
	}
	for a := range s.guarded {
		if !addrs[a] {
			s.bundles.leave(a)
			delete(s.bundles.unsure, a)
		}
	}
	s.guarded, s.installed = guarded, installed
}

// differences returns which addresses a new set adds and removes.
func (s *fenceState) differences(addrs map[netip.Addr]bool) (added, removed []netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for a := range addrs {
		if _, ok := s.guarded[a]; !ok {
			added = append(added, a)
		}
	}
	for a := range s.guarded {
		if !addrs[a] {
			removed = append(removed, a)
		}
	}
	return added, removed
}
