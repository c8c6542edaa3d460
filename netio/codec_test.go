package netio

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
)

var (
	mac1 = MAC{0x02, 0, 0, 0, 0x0a, 0x01}
	ip4  = netip.MustParseAddr("10.77.0.100")
	ip6  = netip.MustParseAddr("fd77::100")

	compareIPs = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
)

// golden reads the bytes of a file in testdata: hexadecimal, with comments that begin with #.
func golden(tb testing.TB, name string) []byte {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".hex"))
	if err != nil {
		tb.Fatal(err)
	}
	var digits strings.Builder
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		tb.Fatalf("%s: %v", name, err)
	}
	return b
}

func TestFramesByteForByte(t *testing.T) {
	for name, got := range map[string][]byte{
		"gratuitous_request": GratuitousARP(ARPRequest, mac1, ip4).AppendFrame(nil),
		"gratuitous_reply":   GratuitousARP(ARPReply, mac1, ip4).AppendFrame(nil),
		"probe_arp":          ProbeARP(mac1, ip4).AppendFrame(nil),
		"unsolicited_na":     UnsolicitedNA(mac1, ip6).AppendFrame(nil),
		"probe_ns":           ProbeNS(mac1, ip6).AppendFrame(nil),
	} {
		if want := golden(t, name); !bytes.Equal(got, want) {
			t.Errorf("%s\n got % x\nwant % x", name, got, want)
		}
		var f ethernet.Frame
		if err := f.UnmarshalBinary(got); err != nil || MAC(f.Source) != mac1 {
			t.Errorf("%s: package ethernet reads %+v, %v", name, f, err)
		}
	}
}

func TestFramesAreAppended(t *testing.T) {
	for _, f := range []interface{ AppendFrame([]byte) []byte }{ProbeARP(mac1, ip4), ProbeNS(mac1, ip6), UnsolicitedNA(mac1, ip6)} {
		alone, after := f.AppendFrame(nil), f.AppendFrame([]byte("before"))
		if want := append([]byte("before"), alone...); !bytes.Equal(after, want) {
			t.Errorf("%T: got % x, want % x", f, after, want)
		}
	}
}

func TestFramesAreReadBack(t *testing.T) {
	for _, want := range []ARP{GratuitousARP(ARPRequest, mac1, ip4), GratuitousARP(ARPReply, mac1, ip4), ProbeARP(mac1, ip4)} {
		got, err := ParseARP(want.AppendFrame(nil))
		if diff := cmp.Diff(want, got, compareIPs); diff != "" || err != nil {
			t.Errorf("%v (-want +got)\n%s", err, diff)
		}
	}
	for _, want := range []NDP{UnsolicitedNA(mac1, ip6), ProbeNS(mac1, ip6)} {
		got, err := ParseNDP(want.AppendFrame(nil))
		if diff := cmp.Diff(want, got, compareIPs); diff != "" || err != nil {
			t.Errorf("%v (-want +got)\n%s", err, diff)
		}
	}
}

func TestBadFramesAreRefused(t *testing.T) {
	set := func(frame []byte, at int, to byte) []byte {
		b := bytes.Clone(frame)
		b[at] = to
		return b
	}
	flip := func(frame []byte, at int) []byte { return set(frame, at, frame[at]^0x01) }
	arp, na := golden(t, "gratuitous_reply"), golden(t, "unsolicited_na")
	for name, frame := range map[string][]byte{
		"empty":              nil,
		"header alone":       arp[:headerLen],
		"cut":                arp[:headerLen+arpLen-1],
		"not ARP":            flip(arp, 13),
		"other hardware":     flip(arp, headerLen+1),
		"other lengths":      flip(arp, headerLen+4),
		"another frame type": na,
	} {
		if p, err := ParseARP(frame); err == nil {
			t.Errorf("ARP, %s: read as %+v", name, p)
		}
	}
	for name, frame := range map[string][]byte{
		"empty":              nil,
		"cut":                na[:len(na)-1],
		"not IPv6":           flip(na, 13),
		"another version":    set(na, headerLen, 0x40),
		"forwarded":          flip(na, headerLen+7),
		"not ICMPv6":         flip(na, headerLen+6),
		"checksum":           flip(na, headerLen+ipv6Len+2),
		"target":             flip(na, headerLen+ipv6Len+20),
		"size not of eights": flip(na, headerLen+5),
		"option of size 0":   withOptionSize(na, 0),
		"option too long":    withOptionSize(na, 2),
	} {
		if m, err := ParseNDP(frame); err == nil {
			t.Errorf("NDP, %s: read as %+v", name, m)
		}
	}
}

// withOptionSize changes the size of an advertisement's option and repairs the checksum.
func withOptionSize(na []byte, size byte) []byte {
	b := bytes.Clone(na)
	b[headerLen+ipv6Len+ndpLen+1] = size
	msg := b[headerLen+ipv6Len:]
	msg[2], msg[3] = 0, 0
	binary.BigEndian.PutUint16(msg[2:], ^checksum([16]byte(b[headerLen+8:]), [16]byte(b[headerLen+24:]), msg))
	return b
}

func TestAddressMessagesByteForByte(t *testing.T) {
	life := lifetime{Preferred: 2, Valid: 2}
	for name, a := range map[string]address{
		"newaddr_ipv4": {Index: 7, Local: ip4, Peer: ip4, Bits: 32, Proto: MarkProtocol, Label: "eth0:vip", Expiry: life},
		"newaddr_ipv6": {Index: 7, Local: ip6, Peer: ip6, Bits: 128, Proto: MarkProtocol, Flags: ifaFlagNoDAD, Expiry: life},
	} {
		got, err := a.encode()
		if err != nil {
			t.Fatal(err)
		}
		if want := golden(t, name); !bytes.Equal(got, want) {
			t.Errorf("%s\n got % x\nwant % x", name, got, want)
		}
		back, err := parseAddress(got)
		if diff := cmp.Diff(a, back, compareIPs); diff != "" || err != nil {
			t.Errorf("%s read back: %v (-want +got)\n%s", name, err, diff)
		}
	}
}

func TestOurs(t *testing.T) {
	for _, c := range []struct {
		a     address
		label string
		want  bool
	}{
		{address{Proto: MarkProtocol}, "", true},
		{address{}, "", false},
		{address{Label: "eth0:vip"}, "vip", true},
		{address{Label: "eth0:vip", Proto: 18}, "vip", false}, // another daemon's mark
		{address{Label: "eth0:xvip"}, "vip", false},
		{address{Label: "eth0"}, "", false},
	} {
		if got := c.a.ours(c.label); got != c.want {
			t.Errorf("%+v, label %q: ours = %v", c.a, c.label, got)
		}
	}
}

func TestLinkUp(t *testing.T) {
	for flags, want := range map[uint32]bool{
		iffUp | iffRunning | iffLowerUp: true,
		iffUp | iffRunning:              false, // carrier lost, operational state not yet computed
		iffUp | iffLowerUp:              false, // dormant
		iffRunning | iffLowerUp:         false,
		0:                               false,
	} {
		if got := (link{Flags: flags}).up(); got != want {
			t.Errorf("flags %#x: up = %v", flags, got)
		}
	}
}

// The filter in the kernel must let everything pass that the reader behind it wants to see.
func TestFiltersPassWhatIsRead(t *testing.T) {
	other4, other6 := netip.MustParseAddr("10.77.0.7"), netip.MustParseAddr("fd77::7")
	frames := map[string][]byte{
		"request":     GratuitousARP(ARPRequest, mac1, ip4).AppendFrame(nil),
		"reply":       GratuitousARP(ARPReply, mac1, ip4).AppendFrame(nil),
		"ARP probe":   ProbeARP(mac1, ip4).AppendFrame(nil),
		"other ARP":   GratuitousARP(ARPReply, mac1, other4).AppendFrame(nil),
		"other probe": ProbeARP(mac1, other4).AppendFrame(nil),
		"NA":          UnsolicitedNA(mac1, ip6).AppendFrame(nil),
		"NS":          ProbeNS(mac1, ip6).AppendFrame(nil),
		"other NA":    UnsolicitedNA(mac1, other6).AppendFrame(nil),
	}
	for _, c := range []struct {
		ip     netip.Addr
		probes bool
		want   []string
	}{
		{ip4, false, []string{"request", "reply"}},
		{ip4, true, []string{"request", "reply", "ARP probe"}},
		{ip6, false, []string{"NA"}},
		{ip6, true, []string{"NA", "NS"}},
	} {
		compile, read, t4 := arpFilter, readARP, ethernet.EtherTypeARP
		if c.ip.Is6() {
			compile, read, t4 = ndpFilter, readNDP, ethernet.EtherTypeIPv6
		}
		ips := []netip.Addr{netip.MustParseAddr("192.0.2.1"), c.ip}
		if c.ip.Is6() {
			ips[0] = netip.MustParseAddr("2001:db8::1")
		}
		raw, err := compile(ips, c.probes)
		if err != nil {
			t.Fatal(err)
		}
		vm := machine(t, raw)
		for name, frame := range frames {
			if _, _, err := payload(frame, t4); err != nil {
				continue // the socket's protocol
			}
			n, err := vm.Run(frame)
			if err != nil {
				t.Fatal(err)
			}
			s, ok := read(frame, map[netip.Addr]bool{ips[0]: true, ips[1]: true}, c.probes)
			want := false
			for _, w := range c.want {
				want = want || w == name
			}
			if (n > 0) != want || ok != want || ok && (s.ip != c.ip || s.mac != mac1) {
				t.Errorf("%v probes=%v, %s: filter %v, reader %v %+v, want %v", c.ip, c.probes, name, n > 0, ok, s, want)
			}
		}
	}
}

func TestFilterOfManyAddresses(t *testing.T) {
	every := func(step uint32) (ips []netip.Addr) { // in no order
		for i := range uint32(1000) {
			ips = append(ips, netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 10<<24+i*7%1000*step))))
		}
		return ips
	}
	for _, c := range []struct {
		step uint32
		most int
	}{{1, 8}, {2, filterMax}} {
		raw, err := arpFilter(every(c.step), false)
		if err != nil || len(raw) == 0 || len(raw) > c.most {
			t.Fatalf("1,000 addresses, each %d after the one before: %d instructions, want %d at most (%v)", c.step, len(raw), c.most, err)
		}
		vm := machine(t, raw)
		for i := range uint32(2100) {
			ip := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 10<<24-50+i)))
			n, err := vm.Run(GratuitousARP(ARPRequest, mac1, ip).AppendFrame(nil))
			if want := slices.Contains(every(c.step), ip); err != nil || n > 0 != want {
				t.Errorf("%v passes: %v, want %v (%v)", ip, n > 0, want, err)
			}
		}
	}
	if raw, err := arpFilter(every(2), true); err != nil || len(raw) > filterMax {
		t.Errorf("1,000 scattered addresses with probes: %d instructions, %v", len(raw), err)
	}
	if raw, err := arpFilter(append(every(2), every(3)...), true); raw != nil || err != nil {
		t.Errorf("too many addresses for a filter: %d instructions, %v", len(raw), err)
	}
}

func machine(t *testing.T, raw []bpf.RawInstruction) *bpf.VM {
	t.Helper()
	prog, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("the filter does not disassemble")
	}
	vm, err := bpf.NewVM(prog)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

func FuzzParseARP(f *testing.F) {
	for _, name := range []string{"gratuitous_request", "gratuitous_reply", "probe_arp"} {
		f.Add(golden(f, name))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseARP(b)
		if err != nil {
			return
		}
		if again, err := ParseARP(p.AppendFrame(nil)); err != nil || again != p {
			t.Errorf("%+v came back as %+v, %v", p, again, err)
		}
		readARP(b, map[netip.Addr]bool{ip4: true}, true)
	})
}

func FuzzParseNDP(f *testing.F) {
	for _, name := range []string{"unsolicited_na", "probe_ns"} {
		f.Add(golden(f, name))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseNDP(b)
		if err != nil {
			return
		}
		if again, err := ParseNDP(m.AppendFrame(nil)); err != nil || again != m {
			t.Errorf("%+v came back as %+v, %v", m, again, err)
		}
		readNDP(b, map[netip.Addr]bool{ip6: true}, true)
	})
}

func FuzzParseAddress(f *testing.F) {
	for _, name := range []string{"newaddr_ipv4", "newaddr_ipv6"} {
		f.Add(golden(f, name))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parseAddress(b)
		if err != nil {
			return
		}
		if !a.prefix().IsValid() {
			t.Fatalf("accepted %+v", a)
		}
		enc, err := a.encode()
		if err != nil {
			return // a label with a zero byte, say
		}
		if again, err := parseAddress(enc); err != nil || again.place() != a.place() || again.Proto != a.Proto {
			t.Errorf("%+v came back as %+v, %v", a, again, err)
		}
	})
}

// What is read is what package netlink's decoder reads, and what it refuses is refused.
func FuzzAttributes(f *testing.F) {
	f.Add(golden(f, "newaddr_ipv4")[ifAddrMsgLen:])
	f.Add(golden(f, "newaddr_ipv6")[ifAddrMsgLen:])
	for _, s := range []string{"", "\x04\x00\x01\x80", "\x00\x00\x03\x00\x05\x00\x01\x00a", "\x03\x00\x01\x00", "\x09\x00\x01\x00abcd", "\x05\x00\x01\x00a\x00\x00\x00\x04"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		as := attributes{rest: b}
		theirs, err := netlink.NewAttributeDecoder(b)
		if err != nil {
			for as.next() {
			}
			if as.err == nil {
				t.Errorf("%x is taken, and package netlink says %v", b, err)
			}
			return
		}
		for theirs.Next() {
			if !as.next() || as.typ != theirs.Type() || !bytes.Equal(as.value, theirs.Bytes()) || as.text() != theirs.String() {
				t.Fatalf("%x has %d: %x (%v), and package netlink has %d: %x", b, as.typ, as.value, as.err, theirs.Type(), theirs.Bytes())
			}
		}
		if as.next() || (as.err == nil) != (theirs.Err() == nil) {
			t.Errorf("%x ends with %v, and for package netlink with %v", b, as.err, theirs.Err())
		}
	})
}

// An Extend reads all addresses of the node twice.
func TestAddressesAreReadWithoutMemory(t *testing.T) {
	for _, name := range []string{"newaddr_ipv4", "newaddr_ipv6"} {
		body := golden(t, name)
		if n := testing.AllocsPerRun(100, func() {
			if _, err := parseAddress(body); err != nil {
				t.Fatal(err)
			}
		}); n > 1 { // the label
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func FuzzParseLink(f *testing.F) {
	body, err := encodeLinkRequest("eth0")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Add(body[:ifInfoMsgLen])
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := parseLink(b); err == nil && l.Ethernet && l.Type != typeEthernet {
			t.Errorf("accepted %+v", l)
		}
	})
}

func BenchmarkFrame(b *testing.B) {
	buf := make([]byte, 0, 128)
	b.Run("ARP", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf = GratuitousARP(ARPReply, mac1, ip4).AppendFrame(buf[:0])
		}
	})
	b.Run("NDP", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf = UnsolicitedNA(mac1, ip6).AppendFrame(buf[:0])
		}
	})
}

func BenchmarkParse(b *testing.B) {
	arp := GratuitousARP(ARPReply, mac1, ip4).AppendFrame(nil)
	na := UnsolicitedNA(mac1, ip6).AppendFrame(nil)
	b.Run("ARP", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ParseARP(arp); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("NDP", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ParseNDP(na); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func TestFramesNeedNoMemory(t *testing.T) {
	buf := make([]byte, 0, 128)
	arp, na := golden(t, "gratuitous_reply"), golden(t, "unsolicited_na")
	for name, f := range map[string]func() error{
		"build": func() error {
			buf = GratuitousARP(ARPReply, mac1, ip4).AppendFrame(buf[:0])
			buf = UnsolicitedNA(mac1, ip6).AppendFrame(buf[:0])
			return nil
		},
		"read ARP": func() error { _, err := ParseARP(arp); return err },
		"read NDP": func() error { _, err := ParseNDP(na); return err },
	} {
		if n := testing.AllocsPerRun(100, func() {
			if err := f(); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
