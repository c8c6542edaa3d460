package netio

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/mdlayher/ethernet"
	"golang.org/x/net/bpf"
)

var (
	macA = MAC{2, 0, 0, 0, 0, 0xa}
	macB = MAC{2, 0, 0, 0, 0, 0xb}
	macC = MAC{2, 0, 0, 0, 0, 0xc}
)

// synTo is the frame of a SYN, with a right checksum, to an address.
func synTo(from, to MAC, src, dst netip.Addr) []byte {
	segment := []byte{0x9c, 0x40, 0x0c, 0xea, 1, 2, 3, 4, 0, 0, 0, 0, 0x60, 0x02, 0xfa, 0xf0, 0, 0, 0, 0, 2, 4, 5, 0xb4}
	pseudo := sumOf(sumOf(uint32(len(segment))+protoTCP, src.AsSlice()), dst.AsSlice())
	binary.BigEndian.PutUint16(segment[tcpSumAt:], ^fold(sumOf(pseudo, segment)))
	if dst.Is6() {
		b := appendHeader(nil, to, from, ethernet.EtherTypeIPv6)
		b = append(b, 0x60, 0, 0, 0, 0, byte(len(segment)), protoTCP, 64)
		return append(append(append(b, src.AsSlice()...), dst.AsSlice()...), segment...)
	}
	b := appendHeader(nil, to, from, ethernet.EtherTypeIPv4)
	ip := append([]byte{0x45, 0, 0, byte(ipv4Len + len(segment)), 0, 1, 0x40, 0, 64, protoTCP, 0, 0}, append(src.AsSlice(), dst.AsSlice()...)...)
	binary.BigEndian.PutUint16(ip[10:], ^fold(sumOf(0, ip)))
	return pad(append(append(b, ip...), segment...), 0)
}

var (
	client4 = netip.MustParseAddr("10.77.0.200")
	client6 = netip.MustParseAddr("2001:db8::200")
)

func TestForwardChangesWhatARouterChanges(t *testing.T) {
	for _, dst := range []netip.Addr{ip4, ip6} {
		src := client4
		if dst.Is6() {
			src = client6
		}
		was := synTo(macA, macB, src, dst)
		frame := bytes.Clone(was)
		if to, ok := tcpTo(frame); !ok || to != dst {
			t.Fatalf("%v: the frame goes to %v, %v", dst, to, ok)
		}
		if !forward(frame, macB, macC) {
			t.Fatalf("%v: not forwarded", dst)
		}
		if MAC(frame[:6]) != macC || MAC(frame[6:12]) != macB {
			t.Errorf("%v: the frame goes from %v to %v", dst, MAC(frame[6:12]), MAC(frame[:6]))
		}
		if dst.Is4() {
			if h := frame[headerLen : headerLen+ipv4Len]; h[8] != 63 || fold(sumOf(0, h)) != 0xffff {
				t.Errorf("%v: %d hops left, header sum %#x", dst, h[8], fold(sumOf(0, h)))
			}
			copy(frame[headerLen+8:headerLen+12], was[headerLen+8:])
		} else {
			if frame[headerLen+7] != 63 {
				t.Errorf("%v: %d hops left", dst, frame[headerLen+7])
			}
			frame[headerLen+7] = 64
		}
		if !bytes.Equal(frame[12:], was[12:]) {
			t.Errorf("%v: more was changed:\n% x\n% x", dst, frame, was)
		}
	}
}

// A segment that no wire has carried yet has a sum over its pseudo-header only.
func TestForwardCompletesAChecksumAndRefusesAWrongOne(t *testing.T) {
	right := synTo(macA, macB, client4, ip4)
	at := headerLen + ipv4Len + tcpSumAt
	partial := bytes.Clone(right)
	segment, pseudo := tcpSegment(partial)
	binary.BigEndian.PutUint16(partial[at:], fold(pseudo+uint32(len(segment))+protoTCP))
	if !forward(partial, macB, macC) || !bytes.Equal(partial[at:at+2], right[at:at+2]) {
		t.Errorf("the sum was completed to % x, want % x", partial[at:at+2], right[at:at+2])
	}
	wrong := bytes.Clone(right)
	wrong[at]++
	if forward(wrong, macB, macC) {
		t.Error("a damaged segment was forwarded")
	}
}

func TestOnlyWholeSegmentsAreForwarded(t *testing.T) {
	for name, change := range map[string]func([]byte){
		"no hops left":     func(b []byte) { b[headerLen+8] = 1 },
		"a fragment":       func(b []byte) { b[headerLen+6] = 0x20 },
		"a later fragment": func(b []byte) { b[headerLen+7] = 1 },
		"UDP":              func(b []byte) { b[headerLen+9] = 17 },
		"cut off":          func(b []byte) { b[headerLen+3] = 255 },
		"no TCP header":    func(b []byte) { b[headerLen+3] = ipv4Len + 4 },
		"ARP":              func(b []byte) { b[13] = 0x06 },
	} {
		b := synTo(macA, macB, client4, ip4)
		change(b)
		if to, ok := tcpTo(b); ok {
			t.Errorf("%s: forwarded to %v", name, to)
		}
	}
}

func TestForwardFilter(t *testing.T) {
	raw, err := forwardFilter([]netip.Addr{netip.MustParseAddr("10.9.9.9"), ip4, ip6})
	must(t, err)
	prog, all := bpf.Disassemble(raw)
	if !all {
		t.Fatal("the filter can not be read back")
	}
	vm, err := bpf.NewVM(prog)
	must(t, err)
	udp := synTo(macA, macB, client4, ip4)
	udp[headerLen+9] = 17
	for _, c := range []struct {
		name  string
		frame []byte
		want  bool
	}{
		{"SYN to IPv4", synTo(macA, macB, client4, ip4), true},
		{"SYN to IPv6", synTo(macA, macB, client6, ip6), true},
		{"SYN to another", synTo(macA, macB, client4, client4), false},
		{"SYN to another, IPv6", synTo(macA, macB, client6, client6), false},
		{"UDP", udp, false},
		{"announcement", GratuitousARP(ARPRequest, macC, ip4).AppendFrame(nil), true},
		{"announcement of another", GratuitousARP(ARPRequest, macC, client4).AppendFrame(nil), false},
		{"advertisement", UnsolicitedNA(macC, ip6).AppendFrame(nil), true},
		{"advertisement of another", UnsolicitedNA(macC, client6).AppendFrame(nil), false},
	} {
		n, err := vm.Run(c.frame)
		if err != nil || n > 0 != c.want {
			t.Errorf("%s: passed is %v (%v), want %v", c.name, n > 0, err, c.want)
		}
	}
}

func FuzzForward(f *testing.F) {
	f.Add(synTo(macA, macB, client4, ip4))
	f.Add(synTo(macA, macB, client6, ip6))
	f.Add(GratuitousARP(ARPReply, macC, ip4).AppendFrame(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, ok := tcpTo(b)
		was := bytes.Clone(b)
		if sent := forward(b, macB, macC); sent && (!ok || MAC(b[:6]) != macC || MAC(b[6:12]) != macB) {
			t.Errorf("forwarded as % x", b)
		} else if !sent && !bytes.Equal(b, was) {
			t.Error("changed and not forwarded")
		}
	})
}
