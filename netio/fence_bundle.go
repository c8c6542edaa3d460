package netio

import (
	"iter"
	"net/netip"
	"slices"
)

// FenceOpening is a set of addresses whose leases rest on the same report. Addresses that are renewed together, time and
// again, cost the kernel no more than one.
type FenceOpening struct {
	Addrs  []netip.Addr
	Report uint64
}

// bundle is addresses that point to the same number in the kernel, which in turn points to a report: to renew them all only
// the latter is changed. A number is never used again for other addresses, so no address is opened in another's name.
type bundle struct {
	number  uint32
	asked   []netip.Addr // as the caller names them
	members []netip.Addr // each once, as in packets
	given   uint64       // the generation at which one of them was last given up before it was made, or all of them together since
	torn    bool         // one of them alone was given up since: the next claim makes another bundle
	left    int          // how many of the members point to it still, as far as is known
}

// bundles knows the bundles in the kernel. Its user has a lock.
//
// What it does not know of does no harm. An address that points to a number which is not there is closed, and a number that
// no address points to opens nothing.
type bundles struct {
	of    map[netip.Addr]*bundle
	last  uint32
	stale []uint32 // in the kernel, and of no use
	// unsure has the addresses of which it is not known for certain what they point to: a claim that moves them is on its way, or
	// has ended without an answer. All others point to their bundle, or to none if they have none.
	unsure map[netip.Addr]bool
	built  uint64 // how often everything was forgotten
}

// claimPlan is what a claim does to bundles.
type claimPlan struct {
	turn    uint32
	built   uint64
	numbers map[uint32]uint64     // what reports bundles are to point to
	kept    []uint32              // those of numbers that the kernel has already
	remove  []uint32              // bundles that nothing points to afterwards
	to      map[netip.Addr]uint32 // addresses that enter a new bundle
	made    []*bundle
	left    []netip.Addr // addresses that were given up meanwhile
}

func (b *bundles) next() uint32 {
	b.last++
	if b.last == closedNumber {
		b.last++
	}
	return b.last
}

// whole returns the bundle of exactly these addresses, if nothing was given up since it was made, or since the claim began.
func (b *bundles) whole(asked []netip.Addr, since uint64) *bundle {
	if len(asked) == 0 {
		return nil
	}
	have := b.of[plainAddr(asked[0])]
	if have != nil && !have.torn && have.given <= since && slices.Equal(have.asked, asked) {
		return have
	}
	return nil
}

// split says how addresses are closed: the bundles that end with them, and the addresses that are to be closed one by one.
func (b *bundles) split(addrs []netip.Addr) (whole []*bundle, single []netip.Addr) {
	lose, unsure := map[*bundle]int{}, map[*bundle]bool{}
	for _, a := range addrs {
		if have := b.of[a]; have != nil {
			lose[have]++
			unsure[have] = unsure[have] || b.unsure[a]
		}
	}
	entire := func(have *bundle) bool { return lose[have] == have.left && !unsure[have] }
	for have := range lose {
		if entire(have) {
			whole = append(whole, have)
		}
	}
	for _, a := range addrs {
		if have := b.of[a]; b.unsure[a] || have != nil && !entire(have) {
			single = append(single, a)
		}
	}
	return whole, single
}

// give notes that addresses are given up in a generation. A bundle of which one is given up alone is replaced before it is
// renewed.
func (b *bundles) give(addrs []netip.Addr, generation uint64) {
	whole, single := b.split(addrs)
	for _, have := range whole {
		have.given = generation
	}
	for _, a := range single {
		if have := b.of[a]; have != nil {
			have.torn = true
		}
	}
}

// doubt notes that a claim is on its way that moves addresses.
func (b *bundles) doubt(addrs iter.Seq[netip.Addr]) {
	if b.unsure == nil {
		b.unsure = make(map[netip.Addr]bool)
	}
	for a := range addrs {
		b.unsure[a] = true
	}
}

// abandon adds to a plan the removal of bundles that lose their last address.
func (b *bundles) abandon(p *claimPlan) {
	if len(p.to) == 0 {
		return
	}
	lose := map[*bundle]int{}
	for a := range p.to {
		if have := b.of[a]; have != nil {
			lose[have]++
		}
	}
	for have, n := range lose {
		if n == have.left && !slices.Contains(p.kept, have.number) {
			p.remove = append(p.remove, have.number)
		}
	}
}

// carried takes note of a plan that was carried out, unless everything was forgotten meanwhile.
func (b *bundles) carried(p claimPlan) bool {
	if b.built != p.built {
		return false
	}
	if b.of == nil {
		b.of = make(map[netip.Addr]*bundle)
	}
	for _, made := range p.made {
		made.left = len(made.members)
		for _, a := range made.members {
			b.leave(a)
			b.of[a] = made
			delete(b.unsure, a)
		}
	}
	b.stale = slices.DeleteFunc(b.stale, func(n uint32) bool { return slices.Contains(p.remove, n) })
	return true
}

// leave takes an address out of its bundle.
func (b *bundles) leave(a netip.Addr) {
	have := b.of[a]
	if have == nil {
		return
	}
	delete(b.of, a)
	have.torn = true
	if have.left--; have.left == 0 {
		b.stale = append(b.stale, have.number)
	}
}

// reset forgets all bundles, since all addresses point to none. Numbers go on.
func (b *bundles) reset() {
	b.of, b.stale, b.unsure = nil, nil, nil
	b.built++
}
