package netio

import (
	"encoding/binary"
	"fmt"
	"net/netip"

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

// filterMax is the number of addresses beyond which the kernel lets every packet of the kind pass; classic BPF programs
// have at most 4096 instructions.
const filterMax = 1000

const (
	takeAll  = 0xffff
	takeNone = 0
)

// arpFilter passes ARP packets whose sender, or target with probes, is one of the addresses.
func arpFilter(ips []netip.Addr, probes bool) ([]bpf.RawInstruction, error) {
	if len(ips) > filterMax {
		return nil, nil
	}
	prog := takeIfOneOf(nil, offARPSender, ips)
	if probes {
		prog = takeIfOneOf(prog, offARPTarget, ips)
	}
	return assemble(prog)
}

// ndpFilter passes neighbour advertisements, and with probes solicitations, whose target ends like one of the addresses.
func ndpFilter(ips []netip.Addr, probes bool) ([]bpf.RawInstruction, error) {
	if len(ips) > filterMax {
		return nil, nil
	}
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

// takeIfOneOf appends instructions that end the program if the word at off is the last of one of the addresses.
func takeIfOneOf(prog []bpf.Instruction, off uint32, ips []netip.Addr) []bpf.Instruction {
	prog = append(prog, bpf.LoadAbsolute{Off: off, Size: 4})
	for _, ip := range ips {
		b := ip.AsSlice()
		prog = append(prog,
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: binary.BigEndian.Uint32(b[len(b)-4:]), SkipTrue: 1},
			bpf.RetConstant{Val: takeAll})
	}
	return prog
}

func assemble(prog []bpf.Instruction) ([]bpf.RawInstruction, error) {
	raw, err := bpf.Assemble(append(prog, bpf.RetConstant{Val: takeNone}))
	if err != nil {
		return nil, fmt.Errorf("assemble a packet filter: %w", err)
	}
	return raw, nil
}
