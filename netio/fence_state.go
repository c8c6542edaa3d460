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
	// generation counts the acts of giving up, turn is the number in the kernel that each of them replaces.
	generation uint64
	turn       uint32
	armed      uint64 // the highest report number armed
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
	return guarded
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

// plan returns the turn that a claim must name, and which addresses a claim that began at generation since may open.
// The others, left, were given up in the meantime.
func (s *fenceState) plan(open map[netip.Addr]uint64, since uint64) (turn uint32, allowed map[netip.Addr]uint64, left []netip.Addr, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.installed {
		return 0, nil, nil, fmt.Errorf("%w: it is not installed", ErrNotGuarded)
	}
	allowed = make(map[netip.Addr]uint64, len(open))
	for a, seq := range open {
		a = plainAddr(a)
		switch given, ok := s.guarded[a]; {
		case !ok:
			return 0, nil, nil, fmt.Errorf("%w: %v", ErrNotGuarded, a)
		case given > since:
			left = append(left, a)
		default:
			allowed[a] = seq
		}
	}
	return s.turn, allowed, left, nil
}

// mayArm checks the numbers of a claim that arms a report.
func (s *fenceState) mayArm(seq uint64, ttl time.Duration, open map[netip.Addr]uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ttl < MinFenceTTL {
		return fmt.Errorf("a lease of %v is shorter than %v", ttl, MinFenceTTL)
	}
	if seq <= s.armed {
		return fmt.Errorf("%w: report %d comes after %d", ErrReportOrder, seq, s.armed)
	}
	for a, acked := range open {
		if acked == closedNumber || acked >= seq {
			return fmt.Errorf("%w: %v is to rest on report %d, which can not have been answered before report %d is sent",
				ErrReportOrder, a, acked, seq)
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
