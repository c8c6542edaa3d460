package lab

import (
	"encoding/binary"
	"net/netip"
)

// proberAddr6 is the address that the prober has for IPv6.
func proberAddr6() netip.Addr { return proberAddr6At(0xffff) }

// askerAddr6 returns one of the addresses that solicitations come from, see [hostAsker].
func askerAddr6(i int) netip.Addr { return proberAddr6At(uint16(i)) }

// proberAddr6At returns fd77::2:i.
func proberAddr6At(i uint16) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x77, 13: proberMark, 14: byte(i >> 8), 15: byte(i)})
}

// askerOf returns which of the askers has an address, and whether one does.
func askerOf(a netip.Addr) (i int, ok bool) {
	b := a.As16()
	i = int(binary.BigEndian.Uint16(b[14:]))
	return i, i < askers && a == askerAddr6(i)
}

// ipv6 returns the beginning of a packet that will have size bytes after its IP header (RFC 8200).
func (q questioner) ipv6(dst [6]byte, from, to netip.Addr, proto, hopLimit uint8, size int) []byte {
	b := append(q.ether(dst, etherTypeIPv6), 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(size))
	b = append(b, proto, hopLimit)
	return append(append(b, from.AsSlice()...), to.AsSlice()...)
}

// solicit returns a neighbour solicitation for the address, in unicast from sender (RFC 4861, 4.3). It says where sender is,
// so the answer waits for nothing.
func (q questioner) solicit(dst [6]byte, sender netip.Addr) []byte {
	return q.nd(dst, sender, q.vip, ndSolicitation, 0, q.vip, ndSourceLink)
}

// own returns what the prober says to who asks where one of its addresses is.
func (q questioner) own(h heard) []byte {
	if q.vip.Is6() {
		return q.nd(h.from, h.asked, h.sender, ndAdvertisement, ndSolicited|ndOverride, h.asked, ndTargetLink)
	}
	return q.arp(2, h.from, h.asked, h.from, h.sender)
}

// nd returns a message of neighbour discovery with the prober's hardware address as its only option.
func (q questioner) nd(dst [6]byte, from, to netip.Addr, kind, flags uint8, target netip.Addr, option uint8) []byte {
	b := q.ipv6(dst, from, to, protoICMPv6, ndHops, ndLen+8)
	at := len(b)
	b = append(b, kind, 0, 0, 0, flags, 0, 0, 0)
	b = append(append(b, target.AsSlice()...), option, 1)
	b = append(b, q.mac[:]...)
	binary.BigEndian.PutUint16(b[at+2:], ^onesSum(q.pseudo(b, at, protoICMPv6), b[at:]))
	return b
}

// echoReply is the type of an echo reply in the address's family.
func (q questioner) echoReply() byte {
	if q.vip.Is6() {
		return echoReply6
	}
	return echoReply4
}

func (q questioner) hearIPv6(h *heard, b []byte) error {
	if f, err := parseND(b); err == nil {
		return q.hearND(h, f)
	}
	ip := b[etherLen:]
	if len(ip) < ipv6Len || ip[0]>>4 != 6 || netip.AddrFrom16([16]byte(ip[8:24])) != q.vip ||
		netip.AddrFrom16([16]byte(ip[24:40])) != proberAddr6() {
		return errNoAnswer
	}
	return q.hearPayload(h, ip[6], ip[ipv6Len:])
}

func (q questioner) hearND(h *heard, f ndFrame) error {
	h.kind, h.sender, h.asked = AnswerNeighbor, f.source, f.target
	if !f.advertises {
		_, known := askerOf(f.target)
		if f.source.IsUnspecified() || !known && f.target != proberAddr6() {
			return errNoAnswer
		}
		h.asks = true
		return nil
	}
	which, known := askerOf(f.dest)
	if !known || f.target != q.vip {
		return errNoAnswer
	}
	h.number = uint32(which)
	return nil
}
