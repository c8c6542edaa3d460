package netio

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
)

func TestParseFenceNotice(t *testing.T) {
	attr := []byte{11, 0, 1, 0, 'r', 'e', 'm', 'o', 'r', 'a', 0, 0}
	for name, tt := range map[string]struct {
		kind netlink.HeaderType
		data []byte
		want fenceNotice
		ok   bool
	}{
		"deleted table":     {nftSubsystem<<8 | 2, append([]byte{nfprotoInet, 0, 0, 0}, attr...), fenceNotice{nfprotoInet, "remora"}, true},
		"new element":       {nftSubsystem<<8 | 12, append([]byte{nfprotoARP, 0, 0, 0}, attr...), fenceNotice{nfprotoARP, "remora"}, true},
		"without a table":   {nftSubsystem<<8 | 2, []byte{nfprotoInet, 0, 0, 0}, fenceNotice{Family: nfprotoInet}, false},
		"new generation":    {nftSubsystem<<8 | nftNewGen, append([]byte{0, 0, 0, 0}, attr...), fenceNotice{}, false},
		"another subsystem": {1<<8 | 2, append([]byte{nfprotoInet, 0, 0, 0}, attr...), fenceNotice{}, false},
	} {
		got, ok, err := parseFenceNotice(netlink.Message{Header: netlink.Header{Type: tt.kind}, Data: tt.data})
		if err != nil || ok != tt.ok || got != tt.want {
			t.Errorf("%s: %v %v %v %s", name, got, ok, err, cmp.Diff(tt.want, got))
		}
	}
	for name, data := range map[string][]byte{"short": {1, 0}, "attribute too long": {1, 0, 0, 0, 200, 0, 1, 0}} {
		if _, _, err := parseFenceNotice(netlink.Message{Header: netlink.Header{Type: nftSubsystem << 8}, Data: data}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzParseFenceNotice(f *testing.F) {
	f.Add(uint16(nftSubsystem<<8|2), []byte{nfprotoInet, 0, 0, 0, 11, 0, 1, 0, 'r', 'e', 'm', 'o', 'r', 'a', 0, 0})
	f.Add(uint16(nftSubsystem<<8|14), []byte{nfprotoARP, 0, 0, 0, 4, 0, 1, 0})
	f.Add(uint16(nftSubsystem<<8|nftNewGen), []byte{0})
	f.Add(uint16(nftSubsystem<<8), []byte{1, 0, 0, 0, 200, 0, 1, 0})
	f.Fuzz(func(t *testing.T, kind uint16, data []byte) {
		n, ok, err := parseFenceNotice(netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(kind)}, Data: data})
		if ok && (err != nil || kind>>8 != nftSubsystem || n.Family != data[0]) {
			t.Errorf("%v %v %v", n, ok, err)
		}
	})
}

func TestNumbersAreNeverThatOfAClosedAddress(t *testing.T) {
	for _, seq := range []uint64{1, 2, 1<<32 - 1, 1 << 32, 1<<33 - 2, 1<<64 - 1} {
		if cmp.Equal(number(seq), number(closedNumber)) {
			t.Errorf("report %d", seq)
		}
	}
	if cmp.Equal(number(1<<32-1), number(1<<32)) {
		t.Error("neighbours have the same number")
	}
}
