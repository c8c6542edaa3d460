package lab

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"time"
)

// ARPFrame is one ARP frame that crossed the bridge (RFC 826 over Ethernet and IPv4).
type ARPFrame struct {
	Time     time.Time // the kernel's time stamp
	Node     string    // who sent it, by the source address of the frame; empty if unknown
	Source   net.HardwareAddr
	Target   net.HardwareAddr // destination of the frame
	Reply    bool
	SenderHW net.HardwareAddr
	SenderIP netip.Addr
	TargetIP netip.Addr
}

// Gratuitous reports whether the frame announces an address: sender and target are the same, RFC 5227 section 3.
func (f ARPFrame) Gratuitous() bool { return f.SenderIP == f.TargetIP && !f.SenderIP.IsUnspecified() }

// Probe reports whether the frame asks if an address is free: RFC 5227 section 1.1.
func (f ARPFrame) Probe() bool { return !f.Reply && f.SenderIP.IsUnspecified() }

var errNotARP = errors.New("not an ARP frame for IPv4 over Ethernet")

// parseARP decodes an Ethernet frame that holds ARP.
func parseARP(b []byte) (ARPFrame, error) {
	const (
		ethernetLen  = 14
		arpLen       = 28
		etherTypeARP = 0x0806
	)
	if len(b) < ethernetLen+arpLen || binary.BigEndian.Uint16(b[12:]) != etherTypeARP {
		return ARPFrame{}, errNotARP
	}
	a := b[ethernetLen:]
	op := binary.BigEndian.Uint16(a[6:])
	if binary.BigEndian.Uint64(a)>>16 != 0x0001_0800_0604 || op < 1 || op > 2 {
		return ARPFrame{}, errNotARP
	}
	hw := func(from []byte) net.HardwareAddr { return net.HardwareAddr(append([]byte(nil), from[:6]...)) }
	return ARPFrame{
		Target: hw(b), Source: hw(b[6:]), Reply: op == 2,
		SenderHW: hw(a[8:]), SenderIP: netip.AddrFrom4([4]byte(a[14:18])), TargetIP: netip.AddrFrom4([4]byte(a[24:28])),
	}, nil
}
