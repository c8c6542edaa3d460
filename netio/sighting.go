package netio

import "net/netip"

// sighting is somebody's claim to an address, seen on the link.
type sighting struct {
	ip  netip.Addr
	mac MAC
}

// readARP returns the claim that an ARP frame makes to one of the addresses. With probes, a probe for the address is one
// too (RFC 5227, 2.1.1): somebody else is about to take it.
func readARP(frame []byte, ips map[netip.Addr]bool, probes bool) (sighting, bool) {
	p, err := ParseARP(frame)
	if err != nil {
		return sighting{}, false
	}
	if ips[p.SenderIP] {
		return sighting{p.SenderIP, p.SenderMAC}, true
	}
	if probes && p.Operation == ARPRequest && p.SenderIP.IsUnspecified() && ips[p.TargetIP] {
		return sighting{p.TargetIP, p.SenderMAC}, true
	}
	return sighting{}, false
}

// readNDP is readARP for IPv6: an advertisement claims its target, and a solicitation from the unspecified address is
// the probe of a node that is about to take it (RFC 4862, 5.4.3).
func readNDP(frame []byte, ips map[netip.Addr]bool, probes bool) (sighting, bool) {
	m, err := ParseNDP(frame)
	if err != nil || !ips[m.Target] {
		return sighting{}, false
	}
	claims := m.Type == NeighborAdvertisement || probes && m.Source.IsUnspecified()
	return sighting{m.Target, m.MAC}, claims
}
