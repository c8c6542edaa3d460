package netio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// PortFence closes TCP ports of the node to all but a few, at all of its own addresses. It is for a server that may be
// written to only by way of a group's address: while the node has no lease of that group, others reach the server neither
// there nor at the node's own address.
type PortFence struct {
	Ports []uint16
	// Lease is a guarded address: the ports are open to everybody while it is open, by the same lease, and else closed,
	// also if it is not guarded.
	Lease netip.Addr
	// Permit lists who reaches the ports at any time. What comes from the node itself, over loopback, does too, and what
	// goes to guarded addresses is the matter of those.
	Permit []netip.Prefix
}

// permitMax bounds the rules: the kernel repeats them in its answer, which has to be one datagram.
const permitMax = 48

// arphrdLoopback is the type of the loopback interface (linux/if_arp.h).
const arphrdLoopback = 772

// SetPorts replaces what ports are closed; nil closes none. A change builds the tables anew, with all addresses closed until
// their leases are renewed.
func (f *Fence) SetPorts(p *PortFence) error {
	var rules []*nftables.Rule
	if p != nil {
		if !p.Lease.IsValid() || len(p.Permit) > permitMax || slices.Contains(p.Ports, 0) {
			return fmt.Errorf("netio: fence: ports %v by the lease of %v for %d networks: %w", p.Ports, p.Lease, len(p.Permit),
				errors.New("an address, ports other than 0 and no more than 48 networks are needed"))
		}
		rules = f.tables.rulesOfPorts(*p)
	}
	f.yieldMu.Lock()
	defer f.yieldMu.Unlock()
	if samePorts(p, f.tables.portFence) {
		return nil
	}
	f.tables.setPorts(p, rules)
	if !f.state.isInstalled() {
		return nil
	}
	f.state.shutAll()
	if err := f.rebuild(); err != nil {
		return fmt.Errorf("netio: fence: close ports: %w", err)
	}
	return nil
}

func samePorts(a, b *PortFence) bool { return reflect.DeepEqual(a, b) }

func (t *fenceTables) setPorts(p *PortFence, rules []*nftables.Rule) {
	t.portFence = nil
	if p != nil {
		t.portFence = &PortFence{Ports: slices.Clone(p.Ports), Lease: p.Lease, Permit: slices.Clone(p.Permit)}
	}
	t.portRules = rules
	t.arrange()
}

// rulesOfPorts come after those of the addresses in the chain for what comes in: what goes to guarded addresses does not get
// as far.
func (t *fenceTables) rulesOfPorts(p PortFence) []*nftables.Rule {
	var rules []*nftables.Rule
	add := func(exprs ...[]expr.Any) {
		rules = append(rules, &nftables.Rule{Table: t.inet, Chain: t.input, Exprs: slices.Concat(exprs...)})
	}
	accept, drop := []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}, []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}
	v4, v6 := meta(expr.MetaKeyNFPROTO, unix.NFPROTO_IPV4), meta(expr.MetaKeyNFPROTO, unix.NFPROTO_IPV6)
	add([]expr.Any{&expr.Meta{Key: expr.MetaKeyIIFTYPE, Register: regAddress},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regAddress, Data: binary.NativeEndian.AppendUint16(nil, arphrdLoopback)}}, accept)
	for _, permit := range p.Permit {
		permit = netip.PrefixFrom(plainAddr(permit.Addr()), permit.Bits()).Masked()
		family, offset := v4, uint32(12)
		if permit.Addr().Is6() {
			family, offset = v6, 8
		}
		add(family, within(permit, offset), accept)
	}
	lease := plainAddr(p.Lease)
	addrs := t.addr4[0]
	if lease.Is6() {
		addrs = t.addr6[0]
	}
	for _, port := range p.Ports {
		match := slices.Concat(meta(expr.MetaKeyL4PROTO, unix.IPPROTO_TCP), []expr.Any{
			&expr.Payload{DestRegister: regAddress, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: regAddress, Data: binary.BigEndian.AppendUint16(nil, port)}})
		add(match, t.alive(addrs, &expr.Immediate{Register: regAddress, Data: lease.AsSlice()}), accept)
		add(match, drop)
	}
	return rules
}

// within matches packets whose source, at offset of the network header, is in a network.
func within(p netip.Prefix, offset uint32) []expr.Any {
	bytes := p.Addr().AsSlice()
	exprs := []expr.Any{&expr.Payload{DestRegister: regAddress, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(len(bytes))}}
	if p.Bits() < len(bytes)*8 {
		mask := make([]byte, len(bytes))
		for i := range p.Bits() {
			mask[i/8] |= 0x80 >> (i % 8)
		}
		exprs = append(exprs, &expr.Bitwise{SourceRegister: regAddress, DestRegister: regAddress, Len: uint32(len(bytes)), Mask: mask, Xor: make([]byte, len(bytes))})
	}
	return append(exprs, &expr.Cmp{Op: expr.CmpOpEq, Register: regAddress, Data: bytes})
}
