package netio

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// netlinkMessage is a message as the kernel sends it.
func netlinkMessage(typ uint16, body []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, make([]byte, unix.SizeofNlMsghdr-6)...)
	return append(b, body...)
}

func TestWhatDatagramsHintAt(t *testing.T) {
	body, err := address{Index: 1, Local: vip4.Addr(), Peer: vip4.Addr(), Bits: 32}.encode()
	must(t, err)
	come, gone := netlinkMessage(unix.RTM_NEWADDR, body), netlinkMessage(unix.RTM_DELADDR, body)
	link := netlinkMessage(unix.RTM_NEWLINK, make([]byte, unix.SizeofIfInfomsg))
	anything := hint{}
	for _, tt := range []struct {
		name     string
		datagram []byte
		cut      bool
		want     []hint
	}{
		{"an address", come, false, []hint{{addr: &address{Local: vip4.Addr()}}}},
		{"an address that goes", gone, false, []hint{{addr: &address{Local: vip4.Addr()}, gone: true}}},
		{"a link", link, false, []hint{{link: true}}},
		{"two in one", append(append([]byte{}, come...), link...), false, []hint{{addr: &address{Local: vip4.Addr()}}, {link: true}}},
		{"neither", netlinkMessage(unix.RTM_NEWROUTE, body), false, nil},
		{"cut off by us", link, true, []hint{anything}},
		{"shorter than it says", come[:len(come)-4], false, []hint{anything}},
		{"an address without attributes", netlinkMessage(unix.RTM_NEWADDR, body[:ifAddrMsgLen]), false, []hint{anything}},
		{"nothing", nil, false, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := appendHints(nil, tt.datagram, tt.cut)
			if len(got) != len(tt.want) {
				t.Fatalf("%d hints, want %d", len(got), len(tt.want))
			}
			local := func(h hint) netip.Addr {
				if h.addr == nil {
					return netip.Addr{}
				}
				return h.addr.Local
			}
			for i, h := range got {
				if w := tt.want[i]; h.link != w.link || h.gone != w.gone || local(h) != local(w) {
					t.Errorf("hint %d is %+v, want %+v", i, h, w)
				}
			}
		})
	}
}
