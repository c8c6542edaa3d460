package netio

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/mdlayher/ethernet"
)

// Operations of an ARP packet (RFC 826).
const (
	ARPRequest uint16 = 1
	ARPReply   uint16 = 2
)

// ARP is an ARP packet for IPv4 over Ethernet (RFC 826).
type ARP struct {
	Operation uint16
	SenderMAC MAC
	SenderIP  netip.Addr
	TargetMAC MAC
	TargetIP  netip.Addr
}

const arpLen = 28

// arpFixed is how every ARP packet for IPv4 over Ethernet begins: hardware type, protocol type and both lengths.
var arpFixed = [6]byte{0, 1, 0x08, 0x00, 6, 4}

// GratuitousARP returns the packet that announces ip at mac to everybody. The request form is the announcement of RFC
// 5227, 2.3. The reply form repeats mac as the target, as RFC 5944, 4.6 wants it. Receivers differ in which of the two
// they heed.
func GratuitousARP(operation uint16, mac MAC, ip netip.Addr) ARP {
	p := ARP{Operation: operation, SenderMAC: mac, SenderIP: ip, TargetIP: ip}
	if operation == ARPReply {
		p.TargetMAC = mac
	}
	return p
}

// ProbeARP returns the packet that asks whether somebody uses ip, without claiming it (RFC 5227, 2.1.1).
func ProbeARP(mac MAC, ip netip.Addr) ARP {
	return ARP{Operation: ARPRequest, SenderMAC: mac, SenderIP: netip.IPv4Unspecified(), TargetIP: ip}
}

// AppendFrame appends an Ethernet frame with p, from p's sender to everybody, to b. It does not allocate if b has room
// for 60 bytes. Both IP addresses must be IPv4.
func (p ARP) AppendFrame(b []byte) []byte {
	start := len(b)
	b = appendHeader(b, broadcast, p.SenderMAC, ethernet.EtherTypeARP)
	b = append(b, arpFixed[:]...)
	b = binary.BigEndian.AppendUint16(b, p.Operation)
	sender, target := p.SenderIP.As4(), p.TargetIP.As4()
	b = append(b, p.SenderMAC[:]...)
	b = append(b, sender[:]...)
	b = append(b, p.TargetMAC[:]...)
	b = append(b, target[:]...)
	return pad(b, start)
}

// ParseARP reads the ARP packet in an Ethernet frame. Bytes after the packet are padding and are ignored.
func ParseARP(frame []byte) (ARP, error) {
	b, _, err := payload(frame, ethernet.EtherTypeARP)
	if err != nil {
		return ARP{}, err
	}
	if len(b) < arpLen {
		return ARP{}, fmt.Errorf("%w: an ARP packet of %d bytes", errShortFrame, len(b))
	}
	if [6]byte(b) != arpFixed {
		return ARP{}, fmt.Errorf("ARP packet is not for IPv4 over Ethernet: it begins with % x", b[:6])
	}
	return ARP{
		Operation: binary.BigEndian.Uint16(b[6:]),
		SenderMAC: MAC(b[8:14]),
		SenderIP:  netip.AddrFrom4([4]byte(b[14:18])),
		TargetMAC: MAC(b[18:24]),
		TargetIP:  netip.AddrFrom4([4]byte(b[24:28])),
	}, nil
}
