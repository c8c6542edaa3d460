package netio

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/net/bpf"
)

// Where the filters look, from the beginning of the Ethernet frame.
const (
	offARPSender  = headerLen + 14
	offARPTarget  = headerLen + 24
	offNextHeader = headerLen + 6
	offICMPType   = headerLen + ipv6Len
	offNDPTarget4 = headerLen + ipv6Len + 8 + 12 // the last four bytes of the target
)

// filterMax is how many instructions a classic BPF program may have. A filter of more addresses than fit lets every packet of the
// kind pass.
const filterMax = 4096

const (
	takeAll  = 0xffff
	takeNone = 0
)

// arpFilter passes ARP packets whose sender, or target with probes, is one of the addresses.
func arpFilter(ips []netip.Addr, probes bool) ([]bpf.RawInstruction, error) {
	prog := takeIfOneOf(nil, offARPSender, ips)
	if probes {
		prog = takeIfOneOf(prog, offARPTarget, ips)
	}
	return assemble(prog)
}

// ndpFilter passes neighbour advertisements, and with probes solicitations, whose target ends like one of the addresses.
func ndpFilter(ips []netip.Addr, probes bool) ([]bpf.RawInstruction, error) {
	prog := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offNextHeader, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: icmpv6, SkipTrue: 1},
		bpf.RetConstant{Val: takeNone},
		bpf.LoadAbsolute{Off: offICMPType, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(NeighborAdvertisement), SkipTrue: 2},
	}
	if probes {
		prog = append(prog, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(NeighborSolicitation), SkipTrue: 1})
	} else {
		prog = append(prog, bpf.Jump{Skip: 0})
	}
	prog = append(prog, bpf.RetConstant{Val: takeNone})
	return assemble(takeIfOneOf(prog, offNDPTarget4, ips))
}

// takeIfOneOf appends instructions that end the program if the word at off is the last of one of the addresses. It runs for each
// frame, and addresses that follow one another, as many mostly do, cost no more than one.
func takeIfOneOf(prog []bpf.Instruction, off uint32, ips []netip.Addr) []bpf.Instruction {
	prog = append(prog, bpf.LoadAbsolute{Off: off, Size: 4})
	for _, s := range spans(ips) {
		if s.first == s.last {
			prog = append(prog, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: s.first, SkipTrue: 1})
		} else {
			prog = append(prog,
				bpf.JumpIf{Cond: bpf.JumpLessThan, Val: s.first, SkipTrue: 2},
				bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: s.last, SkipTrue: 1})
		}
		prog = append(prog, bpf.RetConstant{Val: takeAll})
	}
	return prog
}

// span is words that follow one another.
type span struct{ first, last uint32 }

// spans returns the last words of addresses.
func spans(ips []netip.Addr) (all []span) {
	words := make([]uint32, len(ips))
	for i, ip := range ips {
		b := ip.AsSlice()
		words[i] = binary.BigEndian.Uint32(b[len(b)-4:])
	}
	slices.Sort(words)
	for _, w := range words {
		if n := len(all); n > 0 && w-all[n-1].last <= 1 {
			all[n-1].last = w
			continue
		}
		all = append(all, span{w, w})
	}
	return all
}

func assemble(prog []bpf.Instruction) ([]bpf.RawInstruction, error) {
	prog = append(prog, bpf.RetConstant{Val: takeNone})
	if len(prog) > filterMax {
		return nil, nil
	}
	raw, err := bpf.Assemble(prog)
	if err != nil {
		return nil, fmt.Errorf("assemble a packet filter: %w", err)
	}
	return raw, nil
}
