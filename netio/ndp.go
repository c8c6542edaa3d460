package netio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/ethernet"
)

// Types of a neighbour discovery message (RFC 4861, 4.3 and 4.4).
const (
	NeighborSolicitation  uint8 = 135
	NeighborAdvertisement uint8 = 136
)

// NDP is a neighbour solicitation or advertisement in its Ethernet frame and IPv6 packet.
type NDP struct {
	Type uint8
	// MAC is the sender's hardware address. If the message names the hardware address of its target, it is that one.
	MAC MAC
	// Source is the sender's IP address; in the probe of an address that nobody may have yet it is unspecified.
	Source netip.Addr
	Target netip.Addr
	// Override says that an advertisement replaces what a receiver has in its cache.
	Override bool
}

const (
	ipv6Len          = 40
	ndpLen           = 24   // ICMPv6 header, reserved, target
	ndpOptionLen     = 8    // one link-layer address option for Ethernet
	ndpHopLimit      = 255  // proves that no router has forwarded the packet (RFC 4861, 7.1)
	icmpv6           = 58   // IPv6 next header
	optTargetLink    = 2    // RFC 4861, 4.6.1
	ndpFlagOverride  = 0x20 // of the first byte after the checksum
	solicitedMAC0    = 0x33 // RFC 2464, 7: multicast frames go to 33:33 and the last four bytes of the group
	ipv6VersionClass = 0x60
)

var errBadNDP = errors.New("not a valid neighbour discovery message")

// allNodes is ff02::1.
var allNodes = netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 15: 1})

// UnsolicitedNA returns the message that announces ip at mac to all nodes (RFC 4861, 7.2.6).
func UnsolicitedNA(mac MAC, ip netip.Addr) NDP {
	return NDP{Type: NeighborAdvertisement, MAC: mac, Source: ip, Target: ip, Override: true}
}

// ProbeNS returns the message that asks whether somebody uses ip, without claiming it, as duplicate address detection
// does (RFC 4862, 5.4.2).
func ProbeNS(mac MAC, ip netip.Addr) NDP {
	return NDP{Type: NeighborSolicitation, MAC: mac, Source: netip.IPv6Unspecified(), Target: ip}
}

// solicitedNode returns the multicast group in which the holder of ip listens (RFC 4291, 2.7.1).
func solicitedNode(ip netip.Addr) netip.Addr {
	a := ip.As16()
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 11: 1, 12: 0xff, 13: a[13], 14: a[14], 15: a[15]})
}

// multicastMAC returns the hardware address of an IPv6 multicast group (RFC 2464, 7).
func multicastMAC(group netip.Addr) MAC {
	a := group.As16()
	return MAC{solicitedMAC0, solicitedMAC0, a[12], a[13], a[14], a[15]}
}

// AppendFrame appends an Ethernet frame with m to b: a solicitation to the target's own group, an advertisement to all
// nodes. It does not allocate if b has room for 86 bytes.
func (m NDP) AppendFrame(b []byte) []byte {
	dst, size := allNodes, ndpLen+ndpOptionLen
	if m.Type == NeighborSolicitation {
		dst, size = solicitedNode(m.Target), ndpLen
	}
	start := len(b)
	b = appendHeader(b, multicastMAC(dst), m.MAC, ethernet.EtherTypeIPv6)
	b = append(b, ipv6VersionClass, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(size))
	b = append(b, icmpv6, ndpHopLimit)
	source, group, target := m.Source.As16(), dst.As16(), m.Target.As16()
	b = append(b, source[:]...)
	b = append(b, group[:]...)
	icmp := len(b)
	b = append(b, m.Type, 0, 0, 0, m.flags(), 0, 0, 0)
	b = append(b, target[:]...)
	if m.Type == NeighborAdvertisement {
		b = append(b, optTargetLink, 1)
		b = append(b, m.MAC[:]...)
	}
	binary.BigEndian.PutUint16(b[icmp+2:], ^checksum(source, group, b[icmp:]))
	return pad(b, start)
}

func (m NDP) flags() byte {
	if m.Override {
		return ndpFlagOverride
	}
	return 0
}

// checksum returns the ones' complement sum over the pseudo-header and an ICMPv6 message of even length (RFC 8200, 8.1).
// Over a message whose checksum field is right it is 0xffff.
func checksum(src, dst [16]byte, msg []byte) uint16 {
	return fold(sumOf(sumOf(sumOf(uint32(len(msg))+icmpv6, src[:]), dst[:]), msg))
}

// ParseNDP reads the neighbour solicitation or advertisement in an Ethernet frame and checks what RFC 4861, 7.1 demands
// of it. Packets with IPv6 extension headers are refused; nobody sends these messages with any.
func ParseNDP(frame []byte) (NDP, error) {
	b, sender, err := payload(frame, ethernet.EtherTypeIPv6)
	if err != nil {
		return NDP{}, err
	}
	if len(b) < ipv6Len+ndpLen {
		return NDP{}, fmt.Errorf("%w: %d bytes of IPv6", errShortFrame, len(b))
	}
	size := int(binary.BigEndian.Uint16(b[4:]))
	if b[0]>>4 != 6 || b[6] != icmpv6 || b[7] != ndpHopLimit || size < ndpLen || size > len(b)-ipv6Len || size%8 != 0 {
		return NDP{}, fmt.Errorf("%w: header % x", errBadNDP, b[:8])
	}
	msg := b[ipv6Len : ipv6Len+size]
	if checksum([16]byte(b[8:]), [16]byte(b[24:]), msg) != 0xffff {
		return NDP{}, fmt.Errorf("%w: wrong checksum", errBadNDP)
	}
	if t := msg[0]; t != NeighborSolicitation && t != NeighborAdvertisement || msg[1] != 0 {
		return NDP{}, fmt.Errorf("%w: type %d code %d", errBadNDP, t, msg[1])
	}
	m := NDP{Type: msg[0], MAC: sender, Source: netip.AddrFrom16([16]byte(b[8:])), Target: netip.AddrFrom16([16]byte(msg[8:]))}
	m.Override = m.Type == NeighborAdvertisement && msg[4]&ndpFlagOverride != 0
	return m, m.readOptions(msg[ndpLen:])
}

// readOptions takes the target's hardware address from the options of an advertisement.
func (m *NDP) readOptions(b []byte) error {
	for len(b) > 0 {
		n := int(b[1]) * 8 // the message's length is a multiple of 8, so there is a second byte
		if n == 0 || n > len(b) {
			return fmt.Errorf("%w: an option of %d bytes where %d are left", errBadNDP, n, len(b))
		}
		if b[0] == optTargetLink && n == ndpOptionLen && m.Type == NeighborAdvertisement {
			m.MAC = MAC(b[2:8])
		}
		b = b[n:]
	}
	return nil
}
