package core

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func prefixes(texts ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, t := range texts {
		ps = append(ps, netip.MustParsePrefix(t))
	}
	return ps
}

// ledgerConfig has two groups, three nodes of which mgr is a witness, and addresses that the caller says.
func ledgerConfig(version uint64, writer, spare string) Config {
	return Config{
		Version: version, Cluster: "test", TTL: 300,
		Nodes: []NodeSpec{{Name: "n1"}, {Name: "n2"}, {Name: "mgr", Witness: true}},
		Groups: []GroupSpec{
			{Name: "writer", Role: Writer, Policy: AnyHealthy, Interface: "eth0", Addresses: prefixes(writer)},
			{Name: "spare", Role: Writer, Policy: AnyHealthy, Interface: "eth0", Addresses: prefixes(spare)},
		},
	}
}

// ledgerWith applies each operation as an entry of its own.
func ledgerWith(ops ...Op) *Ledger {
	l := NewLedger()
	for _, op := range ops {
		apply(l, op)
	}
	return l
}

func apply(l *Ledger, ops ...Op) []Outcome {
	return l.Apply(l.View().Index+1, 1, Command{ID: 1, By: "n1", At: 1700000000000, Ops: ops})
}

func configureOp(c Config) Op { return Op{Configure: &c} }

func grantOf(g GroupName, prev Epoch, to NodeName) Op {
	return Op{Grant: &Grant{Group: g, Prev: prev, To: to, Incarnation: 1, Seq: 1, TTL: 300, Reason: "test"}}
}

func releaseOf(g GroupName, e Epoch, unproved bool) Op {
	return Op{Release: &Release{Group: g, Epoch: e, Node: "n1", Reason: "test", Unproved: unproved}}
}

func TestLedgerRefusals(t *testing.T) {
	base := []Op{configureOp(ledgerConfig(1, "10.0.0.1/32", "10.0.0.2/32"))}
	twice := ledgerConfig(5, "10.0.0.1/32", "10.0.0.1/32")
	noLease := ledgerConfig(5, "10.0.0.1/32", "10.0.0.2/32")
	noLease.TTL = 0
	bothPromote := ledgerConfig(5, "10.0.0.1/32", "10.0.0.2/32")
	bothPromote.Groups[0].Policy, bothPromote.Groups[1].Policy = Promote, Promote
	moving := []Op{grantOf("writer", 0, "n1"), {Move: &Move{Group: "writer", Epoch: 1, To: "n2"}}}
	without := ledgerConfig(2, "10.0.0.1/32", "10.0.0.2/32")
	without.Groups = without.Groups[1:]
	for _, tt := range []struct {
		name  string
		given []Op
		op    Op
		want  string // part of the refusal, empty if accepted
	}{
		{"empty", nil, Op{}, "without content"},
		{"configuration again", nil, configureOp(ledgerConfig(1, "10.0.0.1/32", "10.0.0.2/32")), "version 1 is not newer than 1"},
		{"configuration of version 0", nil, configureOp(ledgerConfig(0, "10.0.0.1/32", "10.0.0.2/32")), "not newer"},
		{"one address in two groups", nil, configureOp(twice), "address 10.0.0.1 is in group writer and in group spare"},
		{"no lease", nil, configureOp(noLease), "a lease of 0 ms is no lease"},
		{"grant", nil, grantOf("writer", 0, "n1"), ""},
		{"grant of an unknown group", nil, grantOf("reader", 0, "n1"), `there is no group "reader"`},
		{"grant after a later epoch", nil, grantOf("writer", 1, "n1"), "follows epoch 1, but the group is in epoch 0"},
		{"grant after an earlier epoch", []Op{grantOf("writer", 0, "n1")}, grantOf("writer", 0, "n2"), "follows epoch 0, but the group is in epoch 1"},
		{"grant to a witness", nil, grantOf("writer", 0, "mgr"), "mgr is a witness"},
		{"grant to a stranger", nil, grantOf("writer", 0, "n9"), `"n9" is not a node`},
		{"grant of a retired group", []Op{configureOp(without)}, grantOf("writer", 0, "n1"), "retired"},
		{"grant of an address that is not released", []Op{grantOf("writer", 0, "n1"), configureOp(ledgerConfig(2, "10.0.0.3/32", "10.0.0.1/32"))},
			grantOf("spare", 0, "n2"), "address 10.0.0.1 still belongs to group writer"},
		{"grant once it is released", []Op{grantOf("writer", 0, "n1"), configureOp(ledgerConfig(2, "10.0.0.3/32", "10.0.0.1/32")), releaseOf("writer", 1, false)},
			grantOf("spare", 0, "n2"), ""},
		{"release", []Op{grantOf("writer", 0, "n1")}, releaseOf("writer", 1, false), ""},
		{"release again", []Op{grantOf("writer", 0, "n1"), releaseOf("writer", 1, false)}, releaseOf("writer", 1, false), "epoch 1 is released already"},
		{"release of an epoch before", []Op{grantOf("writer", 0, "n1"), grantOf("writer", 1, "n2")}, releaseOf("writer", 1, false), "is of epoch 1, but the group is in epoch 2"},
		{"release of what was never granted", nil, releaseOf("writer", 0, false), "released already"},
		{"release of an unknown group", nil, releaseOf("reader", 1, false), "there is no group"},
		{"move", []Op{grantOf("writer", 0, "n1")}, Op{Move: &Move{Group: "writer", Epoch: 1, To: "n2"}}, ""},
		{"move of another epoch", []Op{grantOf("writer", 0, "n1")}, Op{Move: &Move{Group: "writer", Epoch: 2, To: "n2"}}, "is of epoch 2"},
		{"move of what nobody owns", nil, Op{Move: &Move{Group: "writer", To: "n2"}}, `owner ""`},
		{"move to the owner", []Op{grantOf("writer", 0, "n1")}, Op{Move: &Move{Group: "writer", Epoch: 1, To: "n1"}}, "n1 owns the group already"},
		{"move to a witness", []Op{grantOf("writer", 0, "n1")}, Op{Move: &Move{Group: "writer", Epoch: 1, To: "mgr"}}, "witness"},
		{"move to a stranger", []Op{grantOf("writer", 0, "n1")}, Op{Move: &Move{Group: "writer", Epoch: 1, To: "n9"}}, "not a node"},
		{"move of a paused group", []Op{grantOf("writer", 0, "n1"), {Pause: &Pause{Group: "writer", On: true}}},
			Op{Move: &Move{Group: "writer", Epoch: 1, To: "n2"}}, "paused"},
		{"move of a retired group", []Op{grantOf("writer", 0, "n1"), configureOp(without)}, Op{Move: &Move{Group: "writer", Epoch: 1, To: "n2"}}, "retired"},
		{"two groups that promote", nil, configureOp(bothPromote), "both have policy promote"},
		{"drain", moving, Op{Drain: &Drain{Group: "writer", Epoch: 1, Move: 3}}, ""},
		{"drain again", append(moving, Op{Drain: &Drain{Group: "writer", Epoch: 1, Move: 3}}), Op{Drain: &Drain{Group: "writer", Epoch: 1, Move: 3}}, "drained before"},
		{"drain for another switchover", moving, Op{Drain: &Drain{Group: "writer", Epoch: 1, Move: 2}}, "began at index 2 is over"},
		{"drain without a switchover", moving[:1], Op{Drain: &Drain{Group: "writer", Epoch: 1, Move: 3}}, "is over"},
		{"abort", moving, Op{Abort: &Abort{Group: "writer", Epoch: 1, Move: 3}}, ""},
		{"abort after the grant", append(moving, releaseOf("writer", 1, false), grantOf("writer", 1, "n2")), Op{Abort: &Abort{Group: "writer", Epoch: 1, Move: 3}},
			"of epoch 1, but the group is in epoch 2"},
		{"abort again", append(moving, Op{Abort: &Abort{Group: "writer", Epoch: 1, Move: 3}}), Op{Abort: &Abort{Group: "writer", Epoch: 1, Move: 3}}, "is over"},
		{"pause of an unknown group", nil, Op{Pause: &Pause{Group: "reader", On: true}}, "there is no group"},
		{"settle", nil, Op{Settle: &Settle{Version: 1}}, ""},
		{"settle for a version that has passed", nil, Op{Settle: &Settle{Version: 0}}, "version 1 by now"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := ledgerWith(slices.Concat(base, tt.given)...)
			before, history := l.View(), l.History()
			out := apply(l, tt.op)
			if got := out[0].Refused; tt.want == "" && got != "" || tt.want != "" && !strings.Contains(got, tt.want) {
				t.Fatalf("refused %q, want %q", got, tt.want)
			}
			if after := l.View(); tt.want != "" && (!sameGroups(before, after) || len(l.History()) != len(history)) {
				t.Errorf("a refused operation changed the ledger\nfrom %+v\nto   %+v", before, after)
			}
		})
	}
}

func sameGroups(a, b View) bool {
	x, _ := json.Marshal(a.Groups)
	y, _ := json.Marshal(b.Groups)
	return bytes.Equal(x, y)
}

// A proof that the link was asked belongs to what is bound: it goes when that changes.
func TestLedgerProof(t *testing.T) {
	base := configureOp(ledgerConfig(1, "10.0.0.1/32", "10.0.0.2/32"))
	moved := configureOp(ledgerConfig(2, "10.0.0.3/32", "10.0.0.2/32"))
	for _, tt := range []struct {
		name string
		ops  []Op
		want bool
	}{
		{"never granted", nil, false},
		{"granted", []Op{grantOf("writer", 0, "n1")}, false},
		{"served and released", []Op{grantOf("writer", 0, "n1"), releaseOf("writer", 1, false)}, true},
		{"released before it was served", []Op{grantOf("writer", 0, "n1"), releaseOf("writer", 1, true)}, false},
		{"lapsed", []Op{grantOf("writer", 0, "n1"), grantOf("writer", 1, "n2")}, true},
		{"changed while free", []Op{grantOf("writer", 0, "n1"), releaseOf("writer", 1, false), moved}, false},
		{"changed while owned, then released", []Op{grantOf("writer", 0, "n1"), moved, releaseOf("writer", 1, false)}, false},
		{"changed while owned, then lapsed", []Op{grantOf("writer", 0, "n1"), moved, grantOf("writer", 1, "n2")}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := ledgerWith(append([]Op{base}, tt.ops...)...)
			if got := l.View().Groups["writer"].Proved; got != tt.want {
				t.Fatalf("proved %t, want %t", got, tt.want)
			}
		})
	}
}

func TestLedgerConfigureKeepsWhatIsBound(t *testing.T) {
	l := ledgerWith(configureOp(ledgerConfig(1, "10.0.0.1/32", "10.0.0.2/32")), grantOf("writer", 0, "n1"))
	next := ledgerConfig(2, "10.0.0.3/32", "10.0.0.4/32")
	next.Groups[0].Policy = Follow
	apply(l, configureOp(next))
	w, s := l.View().Groups["writer"], l.View().Groups["spare"]
	if w.Spec.Addresses[0].String() != "10.0.0.1/32" || w.Next == nil || w.Next.Addresses[0].String() != "10.0.0.3/32" {
		t.Errorf("writer is owned and changes later: %+v", w)
	}
	if s.Spec.Addresses[0].String() != "10.0.0.4/32" || s.Next != nil {
		t.Errorf("spare is free and changes at once: %+v", s)
	}
	back := ledgerConfig(3, "10.0.0.1/32", "10.0.0.4/32")
	back.Groups[0].Policy = Follow
	apply(l, configureOp(back))
	if w := l.View().Groups["writer"]; w.Next != nil || w.Spec.Policy != Follow {
		t.Errorf("the same binding under another policy changes at once: %+v", w)
	}
}

func TestLedgerLongestLease(t *testing.T) {
	c := func(version uint64, ttl Millis) Op {
		c := ledgerConfig(version, "10.0.0.1/32", "10.0.0.2/32")
		c.TTL = ttl
		return configureOp(c)
	}
	l := NewLedger()
	for i, tt := range []struct {
		op   Op
		want Millis
	}{
		{c(1, 300), 300}, {c(2, 4000), 4000}, {c(3, 45), 4000}, {Op{Settle: &Settle{Version: 2}}, 4000}, {Op{Settle: &Settle{Version: 3}}, 45},
	} {
		apply(l, tt.op)
		if got := l.View().Longest; got != tt.want {
			t.Errorf("after step %d the longest lease is %d ms, want %d", i, got, tt.want)
		}
	}
}

func TestI7_RecoveryRaisesEveryEpoch(t *testing.T) {
	l := ledgerWith(configureOp(ledgerConfig(1, "10.0.0.1/32", "10.0.0.2/32")), grantOf("writer", 0, "n1"))
	l.Recover("n1", 0, "test")
	for name, want := range map[GroupName]Epoch{"writer": 1 + 1<<20, "spare": 1 << 20} {
		if g := l.View().Groups[name]; g.Epoch != want || g.Owner != "" {
			t.Errorf("%s is in epoch %d of %q, want %d of nobody", name, g.Epoch, g.Owner, want)
		}
	}
}

func TestLedgerPanicsOnAnIndexThatWentBack(t *testing.T) {
	l := ledgerWith(configureOp(ledgerConfig(1, "10.0.0.1/32", "10.0.0.2/32")))
	defer func() {
		if got := fmt.Sprint(recover()); !strings.Contains(got, "applied index 1 after 1") {
			t.Fatalf("panic %q", got)
		}
	}()
	l.Apply(1, 1, Command{})
}

func TestLedgerHistoryIsBounded(t *testing.T) {
	l := ledgerWith(configureOp(ledgerConfig(1, "10.0.0.1/32", "10.0.0.2/32")))
	for i := range Epoch(2 * maxHistory) {
		apply(l, grantOf("writer", i, "n1"))
	}
	h := l.History()
	if len(h) != maxHistory || h[len(h)-1].Epoch != 2*maxHistory {
		t.Fatalf("%d entries, the last of epoch %d", len(h), h[len(h)-1].Epoch)
	}
}

func TestLedgerRestoreRefuses(t *testing.T) {
	for _, text := range []string{"", "{", "[]", `{"version":2}`, `{}`, `{"version":1,"view":7}`} {
		l := ledgerWith(configureOp(ledgerConfig(1, "10.0.0.1/32", "10.0.0.2/32")))
		want, _ := l.Snapshot()
		if err := l.Restore([]byte(text)); err == nil {
			t.Errorf("%q was restored", text)
		}
		if got, _ := l.Snapshot(); !bytes.Equal(got, want) {
			t.Errorf("%q was refused and changed the ledger", text)
		}
	}
}

// randomOp returns an operation that may or may not make sense for a ledger.
func randomOp(r *rand.Rand, v View) Op {
	names := []GroupName{"writer", "spare", "reader"}
	nodes := []NodeName{"n1", "n2", "n3", "mgr"}
	g, n := names[r.IntN(3)], nodes[r.IntN(4)]
	e := v.Groups[g].Epoch + Epoch(r.IntN(3)) - 1
	addr := func() string { return fmt.Sprintf("10.0.0.%d/32", 1+r.IntN(4)) }
	switch r.IntN(10) {
	case 0:
		c := ledgerConfig(v.Config.Version+uint64(r.IntN(3)), addr(), addr())
		c.TTL = Millis(r.IntN(1000) - 5)
		if r.IntN(4) == 0 {
			c.Groups = c.Groups[r.IntN(2):]
		}
		return configureOp(c)
	case 1:
		return Op{Settle: &Settle{Version: v.Config.Version - uint64(r.IntN(2))}}
	case 2:
		return Op{Move: &Move{Group: g, Epoch: e, To: n}}
	case 3:
		return Op{Pause: &Pause{Group: g, On: r.IntN(2) == 0}}
	case 4:
		return Op{TakeOffice: &TakeOffice{Node: n, Incarnation: 1}}
	case 5:
		return Op{}
	case 6, 7:
		return releaseOf(g, e, r.IntN(2) == 0)
	default:
		return grantOf(g, e, n)
	}
}

// Two ledgers that are given the same commands have the same bytes, also when one of them is restored from a snapshot at
// every turn. Epochs only rise, and no address is in two groups that are owned.
func TestI7_EpochsOnlyRiseAndLedgersAgree(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		a, b := NewLedger(), NewLedger()
		for i := range Index(150) {
			ops := make([]Op, 1+r.IntN(3))
			for j := range ops {
				ops[j] = randomOp(r, a.View())
			}
			c := Command{ID: r.Uint64(), By: "n1", At: int64(i), Ops: ops}
			before := a.View()
			oa, ob := a.Apply(i+1, Term(i/50), c), b.Apply(i+1, Term(i/50), c)
			if !slices.Equal(oa, ob) {
				t.Fatalf("seed %d, entry %d: outcomes differ\n%v\n%v", seed, i+1, oa, ob)
			}
			checkLedger(t, before, a.View())
			sa, sb := snapshotOf(t, a), snapshotOf(t, b)
			if !bytes.Equal(sa, sb) {
				t.Fatalf("seed %d, entry %d: ledgers differ\n%s\n%s", seed, i+1, sa, sb)
			}
			b = NewLedger()
			if err := b.Restore(sb); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func snapshotOf(t testing.TB, l *Ledger) []byte {
	t.Helper()
	b, err := l.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func checkLedger(t testing.TB, before, after View) {
	t.Helper()
	owner := map[netip.Addr]GroupName{}
	for name, g := range after.Groups {
		if was := before.Groups[name]; g.Epoch < was.Epoch || g.Index < was.Index {
			t.Fatalf("%s went from epoch %d, index %d to epoch %d, index %d", name, was.Epoch, was.Index, g.Epoch, g.Index)
		}
		if g.Owner != "" && (g.Grant == nil || g.Grant.To != g.Owner || g.Grant.Prev+1 != g.Epoch) {
			t.Fatalf("%s is owned by %s in epoch %d on the grant %+v", name, g.Owner, g.Epoch, g.Grant)
		}
		for _, p := range g.Spec.Addresses {
			if other, taken := owner[p.Addr()]; taken && g.Owner != "" {
				t.Fatalf("%s is in %s and in %s", p.Addr(), name, other)
			}
			if g.Owner != "" {
				owner[p.Addr()] = name
			}
		}
	}
	for name := range before.Groups {
		if _, ok := after.Groups[name]; !ok {
			t.Fatalf("group %s was forgotten, and its epoch with it", name)
		}
	}
	if after.Longest < after.Config.TTL {
		t.Fatalf("the longest lease is %d ms, the present length %d", after.Longest, after.Config.TTL)
	}
}

func TestLedgerViewIsACopy(t *testing.T) {
	l := ledgerWith(configureOp(ledgerConfig(1, "10.0.0.1/32", "10.0.0.2/32")))
	want := snapshotOf(t, l)
	v, h := l.View(), l.History()
	v.Groups["writer"] = GroupState{Epoch: 99}
	delete(v.Groups, "spare")
	h[0].Kind = "changed"
	if got := snapshotOf(t, l); !bytes.Equal(got, want) {
		t.Fatalf("the ledger was changed through its copies:\n%s", got)
	}
}
