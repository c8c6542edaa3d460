package lab

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// Neighbour discovery for IPv6 (RFC 4861), as far as observers speak it.
const (
	ndSolicitation  = 135
	ndAdvertisement = 136
	ndLen           = 24 // ICMPv6 header, flags, target
	ndHops          = 255
	ndSourceLink    = 1 // option, RFC 4861, 4.6.1
	ndTargetLink    = 2

	ndSolicited, ndOverride = 0x40, 0x20
)

// ndFrame is a neighbour solicitation or advertisement in its Ethernet frame.
type ndFrame struct {
	from         [6]byte // source of the frame
	source, dest netip.Addr
	target       netip.Addr // whom it asks for or tells of
	advertises   bool       // and does not ask
	solicited    bool       // it is an answer
}

// announces reports whether the frame tells everybody who has an address: RFC 4861, 7.2.6.
func (f ndFrame) announces() bool { return f.advertises && !f.solicited && f.dest.IsMulticast() }

var errNotND = errors.New("not a neighbour solicitation or advertisement")

// parseND decodes an Ethernet frame that holds one.
func parseND(b []byte) (f ndFrame, err error) {
	if len(b) < etherLen+ipv6Len+ndLen || binary.BigEndian.Uint16(b[12:]) != etherTypeIPv6 {
		return f, errNotND
	}
	ip := b[etherLen:]
	size := int(binary.BigEndian.Uint16(ip[4:]))
	if ip[0]>>4 != 6 || ip[6] != protoICMPv6 || ip[7] != ndHops || size < ndLen || size%8 != 0 || size > len(ip)-ipv6Len {
		return f, errNotND
	}
	msg := ip[ipv6Len : ipv6Len+size]
	if onesSum(onesSum(uint16(protoICMPv6+size), ip[8:ipv6Len]), msg) != 0xffff {
		return f, errNotND
	}
	if msg[0] != ndSolicitation && msg[0] != ndAdvertisement || msg[1] != 0 {
		return f, errNotND
	}
	f = ndFrame{from: [6]byte(b[6:12]), source: netip.AddrFrom16([16]byte(ip[8:24])), dest: netip.AddrFrom16([16]byte(ip[24:40])),
		target: netip.AddrFrom16([16]byte(msg[8:24])), advertises: msg[0] == ndAdvertisement}
	f.solicited = f.advertises && msg[4]&ndSolicited != 0
	return f, nil
}
