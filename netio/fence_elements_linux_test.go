package netio

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The messages are those that the library makes for the same elements, but for the set's number, which has a meaning
// only in the transaction that makes the set, for one flag, and for the answers that are asked for.
func TestElementsAreEncodedAsTheLibraryDoes(t *testing.T) {
	tables := newFenceTables("remora", true)
	build := func(b *fenceBatch) {
		b.take(7, 8)
		b.arm(41, 300*time.Millisecond)
		b.bundle(claimPlan{numbers: map[uint32]uint64{3: 40}, kept: []uint32{3}, remove: []uint32{2},
			to: map[netip.Addr]uint32{fence4: 3}})
		b.point(map[netip.Addr]uint32{fence6: 3})
	}
	var theirs []netlink.Message
	lib, err := nftables.New(nftables.AsLasting(), nftables.WithTestDial(func(req []netlink.Message) ([]netlink.Message, error) {
		theirs = append(theirs, req...)
		return nil, io.EOF
	}))
	must(t, err)
	build(&fenceBatch{t: tables, c: lib})
	_ = lib.Flush() // the answers are of no interest
	if len(theirs) == 0 {
		t.Fatal("the library sent nothing")
	}

	var e elementBatch
	e.begin(1234)
	build(&fenceBatch{t: tables, elems: &e})
	ours := parseMessages(t, e.end())
	if len(ours) != len(theirs) {
		t.Fatalf("%d messages, the library makes %d", len(ours), len(theirs))
	}
	for i := range ours {
		a, b := ours[i], theirs[i]
		inner := i > 0 && i < len(ours)-1
		if a.Header.Type != b.Header.Type || a.Header.PID != 1234 {
			t.Errorf("message %d: type %v from port %d, the library's type is %v", i, a.Header.Type, a.Header.PID, b.Header.Type)
		}
		if asks := a.Header.Flags&netlink.Acknowledge != 0; asks != (i == len(ours)-2) {
			t.Errorf("message %d asks for an answer: %t", i, asks)
		}
		if !inner {
			continue
		}
		if x, y := withoutSetID(t, a.Data), withoutSetID(t, b.Data); !bytes.Equal(x, y) {
			t.Errorf("message %d:\n%x\nthe library's is\n%x", i, x, y)
		}
	}
}

func parseMessages(t *testing.T, b []byte) (ms []netlink.Message) {
	t.Helper()
	for len(b) > 0 {
		size := binary.NativeEndian.Uint32(b)
		var m netlink.Message
		must(t, m.UnmarshalBinary(b[:size]))
		ms, b = append(ms, m), b[size:]
	}
	return ms
}

// withoutSetID returns the attributes of a message in the order of their types, without the set's number.
func withoutSetID(t *testing.T, data []byte) []byte {
	t.Helper()
	as, err := netlink.UnmarshalAttributes(data[nfgenSize:])
	must(t, err)
	var kept []netlink.Attribute
	for typ := uint16(1); typ < 8; typ++ {
		for _, a := range as {
			if a.Type&^unix.NLA_F_NESTED == typ && typ != unix.NFTA_SET_ELEM_LIST_SET_ID {
				kept = append(kept, a)
			}
		}
	}
	b, err := netlink.MarshalAttributes(kept)
	must(t, err)
	return append(bytes.Clone(data[:nfgenSize]), b...)
}

// ackOf is an answer of the kernel to the message seq.
func ackOf(seq uint32, errno unix.Errno) []byte {
	b := make([]byte, 36)
	binary.NativeEndian.PutUint32(b, 36)
	binary.NativeEndian.PutUint16(b[4:], unix.NLMSG_ERROR)
	binary.NativeEndian.PutUint32(b[8:], seq)
	binary.NativeEndian.PutUint32(b[16:], uint32(-int32(errno)))
	return b
}

func TestVerdictOnElements(t *testing.T) {
	var e elementBatch
	e.begin(1)
	old := e.seq
	for range 3 {
		e.elements(false, unix.NFPROTO_INET, "t", "s", []setElement{{key: []byte{1, 2, 3, 4}}})
	}
	e.end()
	last := e.seq
	for _, c := range []struct {
		name string
		in   [][]byte
		done bool
		err  error
	}{
		{"the last message was reached", [][]byte{ackOf(last, 0)}, true, nil},
		{"nothing", nil, false, nil},
		{"a message before the last", [][]byte{ackOf(last-1, 0)}, false, nil},
		{"a failure before the last", [][]byte{ackOf(last-2, unix.ENOENT), ackOf(last, 0)}, true, unix.ENOENT},
		{"the first of two failures", [][]byte{ackOf(last-2, unix.ENOENT), ackOf(last, unix.EEXIST)}, false, unix.ENOENT},
		{"the commit failed", [][]byte{ackOf(last, 0), ackOf(old, unix.ENOMEM)}, true, unix.ENOMEM},
		{"an answer to an older transaction", [][]byte{ackOf(old-1, unix.ENOENT)}, false, nil},
		{"cut off", [][]byte{ackOf(last, 0)[:20]}, false, errAnswer},
	} {
		done, err := e.answered(bytes.Join(c.in, nil))
		if done != c.done || !errors.Is(err, c.err) || c.err == nil && err != nil {
			t.Errorf("%s: %t, %v; want %t, %v", c.name, done, err, c.done, c.err)
		}
	}
}

func FuzzElementsAnswered(f *testing.F) {
	f.Add(ackOf(2, 0))
	f.Add(append(ackOf(2, unix.ENOENT), ackOf(3, 0)...))
	f.Add(ackOf(2, 0)[:19])
	f.Add([]byte{17, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		var e elementBatch
		e.begin(1)
		e.elements(false, unix.NFPROTO_INET, "t", "s", []setElement{{key: []byte{1}}})
		e.end()
		if done, err := e.answered(b); done && len(b) < nlmsgSize+4 {
			t.Errorf("%x is a verdict: %v", b, err)
		}
	})
}
