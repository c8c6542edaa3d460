package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/remora-ha/remora/core"
)

// pair returns both ends of a session.
func pair(t testing.TB, seed byte) (*sealer, *opener) {
	t.Helper()
	raw := bytes.Repeat([]byte{seed}, 36)
	a, err := secretFrom(raw)
	must(t, err)
	b, err := secretFrom(raw)
	must(t, err)
	return &sealer{secret: a}, &opener{secret: b}
}

func TestDatagramsAreOpenedOnce(t *testing.T) {
	s, o := pair(t, 1)
	var all openers
	all.add("db1", o)
	var nonce [12]byte
	var sent [][]byte
	for i := range 100 {
		sent = append(sent, s.seal(nil, fmt.Appendf(nil, "message %d", i), &nonce))
	}
	// The last 64 are accepted in any order, once.
	open := func(i int) error {
		msg, _, err := all.open(bytes.Clone(sent[i]), &nonce)
		if err == nil && string(msg) != fmt.Sprintf("message %d", i) {
			t.Errorf("datagram %d opened as %q", i, msg)
		}
		return err
	}
	must(t, open(99))
	for i := 98; i >= 36; i-- {
		must(t, open(i))
	}
	for _, i := range []int{99, 98, 36, 35, 0} {
		if err := open(i); !errors.Is(err, errReplay) {
			t.Errorf("datagram %d again or too late: %v, want %v", i, err, errReplay)
		}
	}
}

func TestForgedDatagramsAreDropped(t *testing.T) {
	s, o := pair(t, 1)
	stranger, _ := pair(t, 2)
	var all openers
	all.add("db1", o)
	var nonce [12]byte
	good := s.seal(nil, []byte("report"), &nonce)
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if _, _, err := all.open(bad, &nonce); err == nil {
			t.Errorf("a datagram with byte %d changed was accepted", i)
		}
	}
	for name, b := range map[string][]byte{"short": good[:sealOverhead-1], "cut": good[:len(good)-1],
		"another session": stranger.seal(nil, []byte("report"), &nonce), "random": bytes.Repeat([]byte{7}, 60)} {
		if _, _, err := all.open(bytes.Clone(b), &nonce); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	// None of that has used the counter up.
	if _, _, err := all.open(good, &nonce); err != nil {
		t.Errorf("the authentic datagram: %v", err)
	}
}

func TestTheLastTwoSessionsAreKept(t *testing.T) {
	var all openers
	var nonce [12]byte
	var sealers []*sealer
	for i := range 3 {
		s, o := pair(t, byte(i))
		sealers = append(sealers, s)
		all.add("db1", o)
	}
	for i, s := range sealers {
		_, _, err := all.open(s.seal(nil, []byte("x"), &nonce), &nonce)
		if gone := errors.Is(err, errSession); gone != (i == 0) {
			t.Errorf("session %d: %v", i, err)
		}
	}
	all.drop("db1")
	if _, _, err := all.open(sealers[2].seal(nil, []byte("x"), &nonce), &nonce); !errors.Is(err, errSession) {
		t.Errorf("a session of a node that was removed: %v", err)
	}
}

func TestReplayWindowAgainstASet(t *testing.T) {
	var w replayWindow
	seen := map[uint64]bool{}
	top := uint64(0)
	for _, c := range []uint64{1, 1, 0, 5, 3, 3, 70, 6, 7, 5, 69, 200, 136, 137, 136, 1 << 40, 1<<40 - 63, 1<<40 - 64} {
		want := c != 0 && !seen[c] && (c > top || top-c < 64)
		if got := w.fresh(c); got != want {
			t.Errorf("fresh(%d) = %v, want %v", c, got, want)
		}
		if want {
			w.mark(c)
			seen[c], top = true, max(top, c)
		}
	}
}

// sealAndOpen returns what seals a message into room that is there, and opens it again.
func sealAndOpen(tb testing.TB) func() {
	s, o := pair(tb, 1)
	var all openers
	all.add("db1", o)
	msg, err := appendMessage(nil, samples()[0])
	must(tb, err)
	buf := make([]byte, 0, maxDatagram)
	var nonce [12]byte
	return func() {
		if _, _, err := all.open(s.seal(buf, msg, &nonce), &nonce); err != nil {
			tb.Fatal(err)
		}
	}
}

func BenchmarkSealOpen(b *testing.B) {
	f := sealAndOpen(b)
	b.ReportAllocs()
	for b.Loop() {
		f()
	}
}

func TestDatagramsAreSealedAndOpenedWithoutMemory(t *testing.T) {
	if n := testing.AllocsPerRun(100, sealAndOpen(t)); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestDatagramsBetweenNodes checks that only authentic datagrams arrive, and that a restart of either end is followed by
// new keys for both directions.
func TestDatagramsBetweenNodes(t *testing.T) {
	c := newCluster(t, "db1", "db2")
	a, b := c.nodes[0], c.nodes[1]
	a.open()
	b.open()
	nonce := uint64(0)
	flows := func(from, to *member) {
		t.Helper()
		nonce++
		eventually(t, fmt.Sprintf("a datagram from %s to %s", from.name, to.name), func() bool {
			from.Send(to.name, core.Confirm{Term: 1, Nonce: nonce})
			return slices.ContainsFunc(to.received(), func(r core.Received) bool {
				m, ok := r.Msg.(core.Confirm)
				return ok && m.Nonce == nonce && r.From == from.name
			})
		})
	}
	flows(a, b)
	flows(b, a)
	for _, m := range []*member{a, b} {
		m.shutdown()
		m.forget()
		m.open()
		flows(a, b)
		flows(b, a)
	}
	must(t, a.Reload())
	flows(a, b)
	flows(b, a)
}

func TestReplayedDatagramsDoNotArriveTwice(t *testing.T) {
	c := newCluster(t, "db1", "db2")
	a, b := c.nodes[0], c.nodes[1]
	a.open()
	b.open()
	eventually(t, "a session", func() bool { return a.peers.get("db2").out.Load() != nil })
	plain, err := appendMessage(nil, core.Confirm{Term: 1, Nonce: 42})
	must(t, err)
	var nonce [12]byte
	sealed := a.peers.get("db2").out.Load().seal(nil, plain, &nonce)
	at, _ := a.peers.address("db2")
	for range 5 {
		must(t, a.wire.conn.SendNow(sealed, at))
	}
	eventually(t, "four datagrams are dropped", func() bool { return b.Status().Datagrams.Dropped >= 4 })
	if n := len(b.received()); n != 1 {
		t.Errorf("a datagram sent five times arrived %d times", n)
	}
}
