package netio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"github.com/mdlayher/ethernet"
)

// MAC is an Ethernet hardware address that can be compared and used as a key.
type MAC [6]byte

// broadcast is the hardware address of everybody on the link.
var broadcast = MAC(ethernet.Broadcast)

// String returns m in the usual notation with colons.
func (m MAC) String() string { return m.HardwareAddr().String() }

// HardwareAddr returns a copy of m in the type that package net uses.
func (m MAC) HardwareAddr() net.HardwareAddr { return append(net.HardwareAddr(nil), m[:]...) }

const (
	headerLen = 14 // destination, source, type; without a VLAN tag, which the kernel takes off
	frameMin  = 60 // IEEE 802.3, without the frame check sequence
)

var errShortFrame = errors.New("frame too short")

// appendHeader appends an Ethernet header to b.
func appendHeader(b []byte, dst, src MAC, t ethernet.EtherType) []byte {
	b = append(b, dst[:]...)
	b = append(b, src[:]...)
	return binary.BigEndian.AppendUint16(b, uint16(t))
}

// pad fills the frame that begins at b[start] with zeros up to the shortest frame that Ethernet allows. Drivers do it
// too, but not virtual ones, and some receivers drop what is shorter.
func pad(b []byte, start int) []byte {
	var zeros [frameMin]byte
	if n := len(b) - start; n < frameMin {
		b = append(b, zeros[n:]...)
	}
	return b
}

// payload returns what an Ethernet frame of type t carries, and who sent the frame.
func payload(frame []byte, t ethernet.EtherType) (p []byte, src MAC, err error) {
	if len(frame) < headerLen {
		return nil, MAC{}, fmt.Errorf("%w: %d bytes", errShortFrame, len(frame))
	}
	if got := ethernet.EtherType(binary.BigEndian.Uint16(frame[12:])); got != t {
		return nil, MAC{}, fmt.Errorf("frame is of type %#04x, not %#04x", uint16(got), uint16(t))
	}
	return frame[headerLen:], MAC(frame[6:12]), nil
}
