package netio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/mdlayher/netlink"
)

// MarkProtocol is the protocol number (IFA_PROTO) that addresses bound by Remora carry. Numbers above 3 are free for
// use by user space (include/uapi/linux/if_addr.h); this one is not among those of iproute2's rt_addrprotos or rt_protos.
const MarkProtocol = 114

// Address families and attributes, from include/uapi/linux/if_addr.h. They are repeated here so that the codec builds
// and is fuzzed anywhere.
const (
	familyIPv4 = 2
	familyIPv6 = 10

	ifaAddress   = 1
	ifaLocal     = 2
	ifaLabel     = 3
	ifaCacheInfo = 6
	ifaFlags     = 8
	ifaMetric    = 9 // IFA_RT_PRIORITY
	ifaProto     = 11

	ifaFlagNoDAD = 0x02
	// ifaFlagsKept are the flags that user space may set on an address. A replacement that left them out would clear them.
	ifaFlagsKept = 0x100 | 0x200 | 0x400 | 0x10 | ifaFlagNoDAD // MANAGETEMPADDR, NOPREFIXROUTE, MCAUTOJOIN, HOMEADDRESS

	ifAddrMsgLen  = 8
	cacheInfoLen  = 16
	labelMax      = 15 // IFNAMSIZ without the final zero
	forever       = 0xffffffff
	scopeUniverse = 0
)

var errShortMessage = errors.New("netlink message too short")

// address is one address on one interface, as an RTM_NEWADDR message tells it.
type address struct {
	Index  uint32
	Local  netip.Addr
	Bits   int
	Peer   netip.Addr // what the prefix length belongs to; Local except on point-to-point links
	Scope  uint8
	Flags  uint32
	Proto  uint8
	Metric uint32 // of the route to the prefix; a replacement without it would set it to 0
	Label  string
	Expiry lifetime
}

// lifetime is struct ifa_cacheinfo. The first two are seconds, the stamps hundredths of a second since boot.
type lifetime struct {
	Preferred, Valid, Created, Updated uint32
}

// place names an address on an interface. The kernel never has two of the same.
type place struct {
	Index uint32
	Local netip.Addr
	Bits  int
}

func (a address) place() place          { return place{a.Index, a.Local, a.Bits} }
func (a address) prefix() netip.Prefix  { return netip.PrefixFrom(a.Local, a.Bits) }
func (a address) permanent() bool       { return a.Expiry.Valid == forever }
func (a address) on(i uint32) bool      { return a.Index == i }
func (a address) is(ip netip.Addr) bool { return a.Local == ip }

// ours reports whether a carries our mark or, where the kernel has no marks, our label.
func (a address) ours(label string) bool {
	return a.Proto == MarkProtocol || label != "" && a.Proto == 0 && strings.HasSuffix(a.Label, ":"+label)
}

// sameOn reports whether a is what adding p to interface i would collide with. On IPv6 an interface has an address only
// once, whatever its prefix length.
func (a address) sameOn(i uint32, p netip.Prefix) bool {
	return a.on(i) && a.is(p.Addr()) && (a.Bits == p.Bits() || p.Addr().Is6())
}

// encode returns the body of an RTM_NEWADDR or RTM_DELADDR message. Lifetimes are left out if Valid is 0.
func (a address) encode() ([]byte, error) {
	family := byte(familyIPv6)
	if a.Local.Is4() {
		family = familyIPv4
	}
	b := []byte{family, byte(a.Bits), byte(a.Flags), a.Scope}
	b = binary.NativeEndian.AppendUint32(b, a.Index)
	e := netlink.NewAttributeEncoder()
	e.Bytes(ifaLocal, a.Local.AsSlice())
	e.Bytes(ifaAddress, a.Peer.AsSlice())
	if a.Flags != 0 {
		e.Uint32(ifaFlags, a.Flags)
	}
	if a.Proto != 0 {
		e.Uint8(ifaProto, a.Proto)
	}
	if a.Metric != 0 {
		e.Uint32(ifaMetric, a.Metric)
	}
	if a.Label != "" {
		e.String(ifaLabel, a.Label)
	}
	if a.Expiry.Valid != 0 {
		e.Bytes(ifaCacheInfo, a.Expiry.encode())
	}
	attrs, err := e.Encode()
	if err != nil {
		return nil, fmt.Errorf("encode address %v: %w", a.prefix(), err)
	}
	return append(b, attrs...), nil
}

func (l lifetime) encode() []byte {
	b := make([]byte, 0, cacheInfoLen)
	for _, v := range []uint32{l.Preferred, l.Valid, l.Created, l.Updated} {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	return b
}

// parseAddress reads the body of an RTM_NEWADDR or RTM_DELADDR message of family IPv4 or IPv6.
func parseAddress(b []byte) (address, error) {
	if len(b) < ifAddrMsgLen {
		return address{}, fmt.Errorf("%w: address of %d bytes", errShortMessage, len(b))
	}
	a := address{Bits: int(b[1]), Flags: uint32(b[2]), Scope: b[3], Index: binary.NativeEndian.Uint32(b[4:])}
	a.Expiry = lifetime{Preferred: forever, Valid: forever}
	as := attributes{rest: b[ifAddrMsgLen:]}
	for as.next() {
		a.readAttribute(&as)
	}
	if as.err != nil {
		return address{}, fmt.Errorf("attributes of an address: %w", as.err)
	}
	if !a.Local.IsValid() { // IPv6 without a peer has IFA_ADDRESS alone
		a.Local = a.Peer
	}
	if !a.Peer.IsValid() {
		a.Peer = a.Local
	}
	if !a.Local.IsValid() || a.Local.Is4() != a.Peer.Is4() || a.Local.Is4() != (b[0] == familyIPv4) || a.Bits > a.Local.BitLen() {
		return address{}, fmt.Errorf("address message of family %d with %v/%d, peer %v", b[0], a.Local, a.Bits, a.Peer)
	}
	return a, nil
}

func (a *address) readAttribute(as *attributes) {
	switch as.typ {
	case ifaAddress:
		a.Peer, as.err = readIP(as.value)
	case ifaLocal:
		a.Local, as.err = readIP(as.value)
	case ifaLabel:
		a.Label = as.text()
	case ifaFlags:
		a.Flags = as.uint32()
	case ifaProto:
		a.Proto = as.uint8()
	case ifaMetric:
		a.Metric = as.uint32()
	case ifaCacheInfo:
		as.err = a.Expiry.decode(as.value)
	}
}

func readIP(b []byte) (netip.Addr, error) {
	ip, ok := netip.AddrFromSlice(b)
	if !ok {
		return ip, fmt.Errorf("an IP address of %d bytes", len(b))
	}
	return ip, nil
}

func (l *lifetime) decode(b []byte) error {
	if len(b) < cacheInfoLen {
		return fmt.Errorf("%w: lifetimes of %d bytes", errShortMessage, len(b))
	}
	u := binary.NativeEndian.Uint32
	*l = lifetime{Preferred: u(b), Valid: u(b[4:]), Created: u(b[8:]), Updated: u(b[12:])}
	return nil
}

func nativeUint32(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }
