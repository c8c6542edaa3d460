package consensus

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/quick"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/remora-ha/remora/core"
)

// samples has one of each kind, with every field set.
func samples() []core.Message {
	spec := core.GroupSpec{Name: "writer", Role: core.Writer, Policy: core.Follow, Interface: "eth0", Preempt: true, KeepUnwritable: 5,
		Promotion: core.Promotion{MaxLost: -1, MaxLag: 1, ApplyWithin: 2, Drain: 3, CatchUp: 4},
		Pool:      "readers", Reading: core.Reading{MaxLag: 5, AllowPrimary: true, BalanceAfter: 6},
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.77.0.100/32"), netip.MustParsePrefix("fd00::1/128")}}
	next := spec
	next.Interface = "eth1"
	return []core.Message{
		core.Report{Incarnation: 1 << 60, Seq: 7, Term: 5, Leaving: true, Starting: true, DryRun: true, Unfenced: true, Config: 3, Release: "1.2.3", Aside: "it has more",
			Holds:   []core.Holding{{Group: "writer", Epoch: 4, Phase: core.Serving}, {Group: "reader", Epoch: 9, Phase: core.Yielding}},
			Blocked: []core.Blocked{{Group: "reader", Reason: "eth0 is down"}}, Foreign: []core.GroupName{"old"},
			Health: core.Health{State: core.Failed, Reason: "refused", Writable: core.Yes, Replicating: core.No, MHAWatches: core.Yes, MHAActs: core.No, Source: "db2:3306",
				Lag: -time.Second, Measured: 3 * time.Second, GTID: "0-1-2", Executed: "0-1-2", Version: "10.11.6-MariaDB",
				SemiSync: core.SemiSync{Waits: true, AfterSync: true, Alone: true, Acks: 1, Replicas: 2, Timeout: time.Second}, Alarms: []string{"wrong password"},
				Listens: []netip.Addr{netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("::1")}}},
		core.Report{Health: core.Health{Listens: []netip.Addr{}}},
		core.Report{},
		core.Confirm{Term: 5, Nonce: 1 << 63},
		core.Echo{Term: 6, Nonce: 1},
		core.Ack{Term: 5, Incarnation: 3, Seq: 9, TTL: 300 * time.Millisecond, Groups: []core.GroupEpoch{{Group: "writer", Epoch: 4}}},
		core.Notice{Group: "writer", State: core.GroupState{Index: 12, Spec: spec, Epoch: 4, Owner: "db1", Since: -1, Reason: "first",
			Paused: true, Retired: true, Proved: true, Next: &next,
			Handover: &core.Handover{From: "db4", Epoch: 3, Unfenced: true},
			Grant: &core.Grant{Group: "writer", Prev: 3, To: "db1", Incarnation: 1 << 61, Seq: 2, TTL: 300, Unfenced: true, Handover: true, Reason: "first",
				Advice: 1 << 62, Waive: 30000, Clear: true, Undo: true, Basis: []core.NodeName{"db2"}},
			Advice: &core.Advice{ID: 1 << 62, Group: "writer", Epoch: 3, From: "db3", Online: true, Wait: 60000, Graceful: true,
				Drain: 1000, Writable: true, By: "mha", Given: "db1", Over: true},
			Move: &core.Move{Group: "writer", Epoch: 4, To: "db2", Reason: "asked for", Began: 9, Drained: true, Executed: "0-1-9"}}, Spec: 1 << 63, Next: 7},
		core.Notice{Group: "writer"},
		core.ReleaseRequest{Group: "writer", Epoch: 4, Reason: "mysqld exited", Unproved: true, Failed: true},
		core.Freeze{Group: "writer", Epoch: 4, Round: 1 << 63, Term: 5},
		core.Frozen{Group: "writer", Epoch: 4, Round: 7, Executed: "0-1-2", Received: "0-1-3", Err: "no"},
		core.Drained{Group: "writer", Epoch: 4, Move: 8, Executed: "0-1-2", Err: "no"},
		core.CaughtUp{Group: "writer", Epoch: 4, Move: 8, Err: "no"},
		core.Clients{Group: "writer", Epoch: 4, Server: netip.MustParseAddrPort("10.77.0.100:3306"),
			Ends: []netip.AddrPort{netip.MustParseAddrPort("10.77.0.200:65535"), netip.MustParseAddrPort("[fd00::1]:1")}},
	}
}

// sameMessage compares as the receiver does: an unknown list of listeners differs from an empty one, other lists do not.
func sameMessage(a, b core.Message) string {
	opts := []cmp.Option{cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{}),
		cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() != ".Listens" }, cmpopts.EquateEmpty())}
	return cmp.Diff(a, b, opts...)
}

func TestMessagesSurviveTheWire(t *testing.T) {
	for _, m := range samples() {
		b, err := appendMessage(nil, m)
		if err != nil {
			t.Errorf("%T: %v", m, err)
			continue
		}
		got, err := parseMessage(b)
		if err != nil {
			t.Errorf("%T: %v", m, err)
			continue
		}
		if diff := sameMessage(m, got); diff != "" {
			t.Errorf("%T (-sent +received):\n%s", m, diff)
		}
	}
}

// TestSamplesHaveEveryField fails when core gets a field that the samples, and so perhaps the codec, do not have.
func TestSamplesHaveEveryField(t *testing.T) {
	for _, m := range []core.Message{samples()[0], samples()[5], samples()[6], samples()[8], samples()[9], samples()[10], samples()[11],
		samples()[12]} {
		everyFieldSet(t, reflect.TypeOf(m).Name(), reflect.ValueOf(m))
	}
}

func everyFieldSet(t *testing.T, path string, v reflect.Value) {
	t.Helper()
	if v.IsZero() && v.Kind() != reflect.Struct {
		t.Errorf("%s is not set in any sample", path)
	}
	switch v.Kind() {
	case reflect.Pointer:
		everyFieldSet(t, path, v.Elem())
	case reflect.Slice:
		everyFieldSet(t, path+"[0]", v.Index(0))
	case reflect.Struct:
		if v.Type().PkgPath() == "net/netip" {
			return
		}
		for i := range v.NumField() {
			everyFieldSet(t, path+"."+v.Type().Field(i).Name, v.Field(i))
		}
	}
}

func TestRandomReportsSurviveTheWire(t *testing.T) {
	word := func(r *rand.Rand, limit int) string { return strings.Repeat("é", r.IntN(limit/2+1)) }
	check := func(seed uint64) bool {
		r := rand.New(rand.NewPCG(seed, 1))
		m := core.Report{Incarnation: core.Incarnation(r.Uint64()), Seq: core.Seq(r.Uint64()), Leaving: r.IntN(2) == 0,
			Config: r.Uint64() >> r.IntN(64), Release: word(r, 20), Health: core.Health{State: core.HealthState(r.IntN(3)),
				Writable: core.Tri(r.IntN(3)), Lag: time.Duration(r.Uint64()), Measured: time.Duration(r.Uint64()), Reason: word(r, core.MaxReason), GTID: word(r, core.MaxGTID)}}
		for range r.IntN(4) {
			m.Holds = append(m.Holds, core.Holding{Group: core.GroupName(word(r, 40)), Epoch: core.Epoch(r.Uint64()), Phase: core.HoldPhase(r.IntN(4))})
		}
		b, err := appendMessage(nil, m)
		if err != nil {
			return false
		}
		got, err := parseMessage(b)
		return err == nil && sameMessage(m, got) == ""
	}
	if err := quick.Check(check, nil); err != nil {
		t.Error(err)
	}
}

func TestTextsAreCutUntilAMessageFits(t *testing.T) {
	long := strings.Repeat("ö", 500)
	m := core.Report{Incarnation: 1, Seq: 2, Health: core.Health{Reason: long, GTID: long, Version: long, Alarms: []string{long, long, long, long, long}}}
	for i := range 16 {
		g := core.GroupName(strings.Repeat("g", 20) + string(rune('a'+i)))
		m.Holds = append(m.Holds, core.Holding{Group: g, Epoch: 1 << 40, Phase: core.Serving})
		m.Blocked = append(m.Blocked, core.Blocked{Group: g, Reason: long})
	}
	b, err := appendMessage(nil, m)
	must(t, err)
	if len(b) > maxMessage {
		t.Errorf("%d bytes, at most %d fit", len(b), maxMessage)
	}
	got, err := parseMessage(b)
	must(t, err)
	r := got.(core.Report)
	if diff := cmp.Diff(m.Holds, r.Holds); diff != "" {
		t.Errorf("holdings were changed (-want +got):\n%s", diff)
	}
	if len(r.Blocked) != len(m.Blocked) || !utf8.ValidString(r.Health.GTID) || len(r.Health.GTID) == 0 {
		t.Errorf("got %d blocked groups and the GTID set %q", len(r.Blocked), r.Health.GTID)
	}
}

// The news of a commit goes out whatever the number of addresses.
func TestNoticesOfManyAddressesFit(t *testing.T) {
	name := strings.Repeat("g", 32)
	spec := core.GroupSpec{Name: core.GroupName(name), Role: core.Writer, Policy: core.Promote, Interface: "enp129s0f0np15"}
	for _, n := range []int{1, core.MaxNoticed, core.MaxNoticed + 1, 1024} {
		for len(spec.Addresses) < n {
			a := netip.AddrFrom16([16]byte{0xfd, 14: byte(len(spec.Addresses) >> 8), 15: byte(len(spec.Addresses))})
			spec.Addresses = append(spec.Addresses, netip.PrefixFrom(a, 128))
		}
		next := spec
		m := core.NewNotice(spec.Name, core.GroupState{Index: 1 << 40, Spec: spec, Next: &next, Epoch: 1 << 40, Owner: core.NodeName(name),
			Reason: strings.Repeat("r", core.MaxReason), Grant: &core.Grant{Group: spec.Name, Prev: 1 << 40, To: core.NodeName(name),
				Reason: strings.Repeat("r", core.MaxReason), Basis: []core.NodeName{"db1", "db2"}}})
		b, err := appendMessage(nil, m)
		must(t, err)
		got, err := parseMessage(b)
		must(t, err)
		if diff := sameMessage(m, got); diff != "" && n > core.MaxNoticed {
			t.Errorf("%d addresses (-want +got):\n%s", n, diff)
		}
	}
}

// A configuration of all the addresses that a file may have is one entry of the log.
func TestConfigurationOfManyAddressesIsAnEntry(t *testing.T) {
	spec := core.GroupSpec{Name: "writer", Role: core.Writer, Policy: core.Promote, Interface: "enp129s0f0np15"}
	for i := range 2048 {
		a := netip.AddrFrom16([16]byte{0xfd, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16 + byte(i>>8), byte(i)})
		spec.Addresses = append(spec.Addresses, netip.PrefixFrom(a, 128))
	}
	_, err := encodeCommand(core.Command{Ops: []core.Op{{Configure: &core.Config{Groups: []core.GroupSpec{spec}}}}})
	must(t, err)
}

// A report fits into a datagram if the names of all groups, with four bytes for each, take no more than 420: the configuration
// accepts no more. Each group may be held and, when a link has just gone down, be one that can not be served.
func TestReportsOfAllGroupsFit(t *testing.T) {
	const room = 420
	for letters := 1; letters <= 63; letters++ {
		m := core.Report{Incarnation: math.MaxUint64, Seq: 1 << 40, Term: 1 << 20, Config: 1 << 20, Release: "v1.23.45-rc.1", Aside: strings.Repeat("a", 99),
			Health: core.Health{Source: "[fd77:1234:5678:9abc:def0:1234:5678:9abc]:33060", Reason: strings.Repeat("r", 99), Version: "10.11.14-MariaDB-0ubuntu0.24.04.1-log",
				Alarms: []string{strings.Repeat("a", 99)}}}
		for i := range min(64, room/(letters+4)) {
			name := core.GroupName(fmt.Sprintf("%0*d", letters, i))[:letters]
			m.Holds = append(m.Holds, core.Holding{Group: name, Epoch: 1<<21 + 100, Phase: core.Serving})
			m.Blocked = append(m.Blocked, core.Blocked{Group: name, Reason: "link enp129s0f0np15 is down"})
		}
		b, err := appendMessage(nil, m)
		if err != nil {
			t.Errorf("%d groups with names of %d letters: %v", len(m.Holds), letters, err)
			continue
		}
		got, err := parseMessage(b)
		must(t, err)
		if r := got.(core.Report); len(r.Holds) != len(m.Holds) || len(r.Blocked) != len(m.Blocked) {
			t.Errorf("%d groups with names of %d letters: %d and %d arrive", len(m.Holds), letters, len(r.Holds), len(r.Blocked))
		}
	}
}

func TestMessagesThatCanNotBeSentAreErrors(t *testing.T) {
	m := core.Report{}
	for range maxWireList {
		m.Holds = append(m.Holds, core.Holding{Group: core.GroupName(strings.Repeat("g", 20))})
	}
	if _, err := appendMessage(nil, m); !errors.Is(err, errWireTooBig) {
		t.Errorf("a report of %d groups: %v, want %v", len(m.Holds), err, errWireTooBig)
	}
	for _, m := range []core.Message{core.Report{Holds: make([]core.Holding, maxWireList+1)},
		core.ReleaseRequest{Group: core.GroupName(strings.Repeat("g", maxWireName+1))}} {
		if _, err := appendMessage(nil, m); !errors.Is(err, errWireValue) {
			t.Errorf("%T: %v, want %v", m, err, errWireValue)
		}
	}
}

func TestDecoderIsStrict(t *testing.T) {
	good, err := appendMessage(nil, core.Confirm{Term: 5, Nonce: 6})
	must(t, err)
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"empty":               {nil, errWireShort},
		"version":             {append([]byte{9}, good[1:]...), errWireVersion},
		"kind":                {append([]byte{wireV6, 99}, good[2:]...), errWireKind},
		"trailing":            {append(append([]byte{}, good...), 0), errWireLong},
		"cut":                 {good[:len(good)-1], errWireShort},
		"long form of a term": {append([]byte{wireV6, kindConfirm, 0x85, 0x00}, good[3:]...), errWireValue},
		"list too long":       {[]byte{wireV6, kindAck, 5, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0xff, 0x7f}, errWireValue},
	} {
		if _, err := parseMessage(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestSetsAreNeverCut(t *testing.T) {
	long := strings.Repeat("u", core.MaxSet)
	for _, m := range []core.Message{core.Frozen{Group: "writer", Executed: long, Received: long, Err: strings.Repeat("e", 500)},
		core.Report{Health: core.Health{Executed: long, GTID: long}}} {
		b, err := appendMessage(nil, m)
		must(t, err)
		got, err := parseMessage(b)
		must(t, err)
		switch got := got.(type) {
		case core.Frozen:
			if got.Executed != long || got.Received != long {
				t.Errorf("sets of %d bytes came as %d and %d", len(long), len(got.Executed), len(got.Received))
			}
		case core.Report:
			if got.Health.Executed != long {
				t.Errorf("a set of %d bytes came as %d", len(long), len(got.Health.Executed))
			}
		}
	}
	b, err := appendMessage(nil, core.Report{Health: core.Health{Executed: long + "u"}})
	must(t, err)
	if got, err := parseMessage(b); err != nil || got.(core.Report).Health.Executed != "" {
		t.Errorf("a set that is too long came as %+v, %v", got, err)
	}
	if _, err := appendMessage(nil, core.Frozen{Executed: strings.Repeat("u", maxWireSet+1)}); !errors.Is(err, errWireValue) {
		t.Errorf("a set that is too long: %v, want %v", err, errWireValue)
	}
}

func FuzzParseMessage(f *testing.F) {
	for _, m := range samples() {
		b, err := appendMessage(nil, m)
		must(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMessage(b)
		if err != nil {
			return
		}
		again, err := appendMessage(nil, m)
		if err != nil {
			if errors.Is(err, errWireTooBig) {
				return
			}
			t.Fatalf("%+v was decoded and can not be encoded: %v", m, err)
		}
		back, err := parseMessage(again)
		if err != nil {
			t.Fatalf("%+v was encoded and can not be decoded: %v", m, err)
		}
		if len(b) <= maxMessage && len(again) == len(b) {
			if diff := sameMessage(m, back); diff != "" {
				t.Fatalf("(-first +second):\n%s", diff)
			}
		}
	})
}

func FuzzDecodeCommand(f *testing.F) {
	for _, c := range []core.Command{{}, {ID: 1, By: "db1", At: 5, Ops: []core.Op{{Grant: &core.Grant{Group: "writer", To: "db1", TTL: 300}}}},
		{Ops: []core.Op{{Configure: &core.Config{Version: 1, Nodes: []core.NodeSpec{{Name: "db1"}}}}, {Release: &core.Release{Epoch: 2}}}},
		{Ops: []core.Op{{Advise: &core.Advice{ID: 7, Group: "writer", From: "db1", Wait: 5}}, {Withdraw: &core.Withdraw{Group: "writer", ID: 7}}}}} {
		b, err := encodeCommand(c)
		must(f, err)
		f.Add(b)
	}
	f.Add([]byte{commandV1})
	f.Add([]byte{2, '{', '}'})
	f.Add([]byte{commandV1, '{', '}', '{', '}'})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeCommand(b)
		if err != nil {
			return
		}
		again, err := encodeCommand(c)
		if err != nil {
			t.Fatalf("%+v was decoded and can not be encoded: %v", c, err)
		}
		back, err := decodeCommand(again)
		if err != nil {
			t.Fatalf("%s can not be decoded: %v", again, err)
		}
		if diff := cmp.Diff(c, back, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{})); diff != "" {
			t.Fatalf("(-first +second):\n%s", diff)
		}
	})
}

func TestCommandsOfOtherReleasesAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		entry string
		want  error
	}{
		"newer version": {"\x02{}", errCommandVersion},
		"unknown field": {"\x01{\"id\":1,\"hold_my_beer\":true}", nil},
		"trailing":      {"\x01{} {}", nil},
		"empty":         {"", nil},
	} {
		_, err := decodeCommand([]byte(c.entry))
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want an error %v", name, err, c.want)
		}
	}
}

func BenchmarkMessage(b *testing.B) {
	m := samples()[0]
	buf := make([]byte, 0, maxMessage)
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := appendMessage(buf, m); err != nil {
				b.Fatal(err)
			}
		}
	})
	raw, err := appendMessage(nil, m)
	must(b, err)
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := parseMessage(raw); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// A seed of another version would be refused by its first byte, and try nothing of what it is there for.
func TestFuzzSeedsAreOfThisVersion(t *testing.T) {
	seeds, err := filepath.Glob("testdata/fuzz/FuzzParseMessage/*")
	if err != nil || len(seeds) == 0 {
		t.Fatalf("no seeds: %v", err)
	}
	for _, name := range seeds {
		b, err := os.ReadFile(name)
		must(t, err)
		if want := fmt.Sprintf(`[]byte("\x%02x`, wireV6); !strings.Contains(string(b), want) {
			t.Errorf("%s does not begin with %s", name, want)
		}
	}
}
