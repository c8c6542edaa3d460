package netio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// loopback is the one interface that each network namespace has.
const loopback = "lo"

// Where things are in an Ethernet frame: ARP for IPv4 (RFC 826) and neighbour advertisements (RFC 4861, 4.4).
const (
	frameType       = 12
	frameARPSender  = 28
	frameNextHeader = 20
	frameICMPv6Type = 54
	frameNDPTarget  = 62
)

// GuardFrames lets no ARP frame and no neighbour advertisement about a closed address leave an interface, whoever sends it
// and how. The hooks that all else rests on see what the kernel sends, but not what a packet socket does; this one does, and
// so closes the moment between the look at the clock and the system call that sends an announcement: a process that is
// stopped there sends nothing when it wakes up after its lease.
//
// An interface that is deleted takes its hook along. Call GuardFrames again for one that was made anew, which has another
// index; for one that has its hook it costs nothing. If the fence is not installed yet, Install puts the hook in place, together
// with all else. If the kernel has no such hook, or does not take it, GuardFrames says so in the log, once for each interface,
// and nothing else of the fence depends on it.
func (f *Fence) GuardFrames(name string, index uint32) {
	if f.tables.wire == nil || !f.state.newInterface(name, index) {
		return
	}
	f.yieldMu.Lock()
	defer f.yieldMu.Unlock()
	if !f.state.isInstalled() {
		return
	}
	others := slices.DeleteFunc(f.state.interfaces(), func(other string) bool { return other == name })
	if !f.hook(append(others, name)) {
		f.tables.guardFrames(others)
	}
}

// hook guards the frames of the last of these interfaces, in addition to the others, which have their hooks. If the kernel takes
// none for it, it is left out from now on, and hook returns false. The caller holds yieldMu.
func (f *Fence) hook(interfaces []string) bool {
	name := interfaces[len(interfaces)-1]
	f.tables.guardFrames(interfaces)
	err := f.yields.commit(func(b *fenceBatch) { b.guardFrames(name) })
	if err == nil || f.check() == nil { // see build
		return true
	}
	f.state.refuse(name)
	f.cfg.Logger.Warn("the fence does not see frames on an interface: a process that is stopped between its look at the clock and "+
		"the sending of an announcement sends that late", "interface", name, "error", err)
	return false
}

// hookedInterface is an interface on which frames are to be guarded.
type hookedInterface struct {
	index   uint32
	refused bool // the kernel takes no hook for it
}

// guardFrames lays out the rules of the interfaces on which frames are guarded.
func (t *fenceTables) guardFrames(interfaces []string) {
	t.frameRules = nil
	for _, name := range interfaces {
		t.frameRules = append(t.frameRules, t.rulesOfFrames(name)...)
	}
	t.arrange()
}

// rulesOfFrames look at frames by their distance from the Ethernet header, since nothing else of a packet socket's frame can
// be relied on.
func (t *fenceTables) rulesOfFrames(name string) []*nftables.Rule {
	c := baseChain(t.wire, "frames-"+name, t.frameHook)
	c.Device = name
	last := func(sets []*nftables.Set) *nftables.Set { return sets[len(sets)-1] }
	const link = expr.PayloadBaseLLHeader
	arp := equal(frameType, binary.BigEndian.AppendUint16(nil, unix.ETH_P_ARP))
	advertised := slices.Concat(equal(frameType, binary.BigEndian.AppendUint16(nil, unix.ETH_P_IPV6)),
		equal(frameNextHeader, []byte{unix.IPPROTO_ICMPV6}), equal(frameICMPv6Type, []byte{NeighborAdvertisement}))
	return slices.Concat(
		t.onlyAlive(c, expr.VerdictAccept, last(t.addr4), arp, link, frameARPSender),
		t.onlyAlive(c, expr.VerdictAccept, last(t.addr6), advertised, link, frameNDPTarget))
}

// equal matches frames that have these bytes at an offset from the Ethernet header.
func equal(off uint32, value []byte) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: regAddress, Base: expr.PayloadBaseLLHeader, Offset: off, Len: uint32(len(value))},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regAddress, Data: value},
	}
}

// guardFrames makes the chain of an interface anew, since an earlier one may hang on an interface that is gone.
func (b *fenceBatch) guardFrames(name string) {
	for _, c := range b.t.chains() {
		if c.Device == name {
			b.c.AddChain(c) // deleting one that is not there would fail
			b.c.DelChain(c)
			b.c.AddChain(c)
		}
	}
	for _, r := range b.t.frameRules {
		if r.Chain.Device == name {
			b.c.AddRule(r)
		}
	}
}

// newInterface takes note of an interface, and reports whether it was not known by this index.
func (s *fenceState) newInterface(name string, index uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if have, ok := s.frames[name]; ok && have.index == index {
		return false
	}
	if s.frames == nil {
		s.frames = make(map[string]hookedInterface)
	}
	s.frames[name] = hookedInterface{index: index}
	return true
}

// refuse leaves an interface out until it is another one.
func (s *fenceState) refuse(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if have, ok := s.frames[name]; ok {
		have.refused = true
		s.frames[name] = have
	}
}

// stillThere reports whether an interface on which frames are guarded is the one that it was then.
func (s *fenceState) stillThere(name string) bool {
	s.mu.Lock()
	have := s.frames[name]
	s.mu.Unlock()
	now, err := interfaceIndex(name)
	return err == nil && now == have.index
}

// interfaces returns the interfaces on which frames are guarded and that are still there, and forgets those that are not.
func (s *fenceState) interfaces() []string {
	s.mu.Lock()
	names := slices.Sorted(maps.Keys(s.frames))
	s.mu.Unlock()
	return slices.DeleteFunc(names, func(name string) bool {
		there := s.stillThere(name)
		s.mu.Lock()
		defer s.mu.Unlock()
		refused := s.frames[name].refused
		if !there {
			delete(s.frames, name)
		}
		return !there || refused
	})
}

// interfaceIndex asks in a way that needs no RTNL lock, for which giving up must not wait.
func interfaceIndex(name string) (uint32, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, fmt.Errorf("interface %q: %w", name, err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("interface %q: %w", name, err)
	}
	err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr)
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		return 0, fmt.Errorf("interface %q: %w", name, err)
	}
	return ifr.Uint32(), nil
}
