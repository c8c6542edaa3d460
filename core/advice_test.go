package core

import (
	"strings"
	"testing"
	"time"
)

// TestAdviceToANodeSetAsideIsRefused: a server with transactions that the owner's lacks is not granted a group, whoever
// advises it.
func TestAdviceToANodeSetAsideIsRefused(t *testing.T) {
	c := newCluster(t, soloConfig(), soloTiming(t))
	c.settle("n1", "n3")
	var answers []string
	c.act = func(_ NodeName, _ Event, as []Action) {
		for _, a := range as {
			if a, ok := a.(Answer); ok {
				answers = append(answers, a.Refused)
			}
		}
	}
	c.step("n3", AdviceAsked{Ticket: 1, Group: "writer", Stop: true, Node: "n1", Online: true, Wait: time.Minute})
	c.run(50 * time.Millisecond)
	if len(answers) != 1 || answers[0] != "" {
		t.Fatalf("the stop was answered %q", answers)
	}
	c.nodes["n3"].m.peers["n2"].report.Aside = "it has transactions that nobody has"
	c.step("n3", AdviceAsked{Ticket: 2, Group: "writer", Node: "n2", Waive: time.Minute})
	if len(answers) != 2 || !strings.Contains(answers[1], "its server is set aside") {
		t.Errorf("the start was answered %q", answers)
	}
}

// TestLedgerHoldsAGroupForTheStart: while an operation is open the ledger itself refuses every grant and move that does
// not close it, whatever an arbiter proposes.
func TestLedgerHoldsAGroupForTheStart(t *testing.T) {
	l := NewLedger()
	at := Index(0)
	apply := func(op Op) string {
		at++
		return l.Apply(at, 1, Command{ID: uint64(at), By: "n3", Ops: []Op{op}})[0].Refused
	}
	cfg := soloConfig()
	grant := func(prev Epoch, to NodeName, advice uint64) Op {
		return Op{Grant: &Grant{Group: "writer", Prev: prev, To: to, Incarnation: 1, Seq: 1, TTL: cfg.TTL, Advice: advice}}
	}
	stop := func(id uint64, e Epoch, from NodeName) Op {
		return Op{Advise: &Advice{ID: id, Group: "writer", Epoch: e, From: from, Wait: 1000}}
	}
	for i, s := range []struct {
		op      Op
		refused bool
	}{
		{Op{Configure: &cfg}, false},
		{grant(0, "n1", 0), false},
		{stop(7, 1, "n2"), true}, // n1 owns it
		{stop(7, 0, "n1"), true}, // of another epoch
		{stop(7, 1, "n9"), true}, // nobody
		{stop(7, 1, "n1"), false},
		{stop(8, 1, "n1"), true}, // one is open
		{Op{Move: &Move{Group: "writer", Epoch: 1, To: "n2"}}, true},
		{Op{Release: &Release{Group: "writer", Epoch: 1, Node: "n1"}}, false},
		{grant(1, "n2", 0), true},
		{grant(1, "n2", 9), true},
		{Op{Withdraw: &Withdraw{Group: "writer", ID: 9}}, true},
		{grant(1, "n2", 7), false},
		{Op{Withdraw: &Withdraw{Group: "writer", ID: 7}}, true}, // closed
		{stop(10, 2, "n2"), false},
		{Op{Withdraw: &Withdraw{Group: "writer", ID: 10}}, false},
		{Op{Release: &Release{Group: "writer", Epoch: 2, Node: "n2"}}, false},
		{grant(2, "n1", 0), false},
	} {
		if why := apply(s.op); (why != "") != s.refused {
			t.Fatalf("step %d: refused %q, want it refused: %v", i, why, s.refused)
		}
	}
	if g := l.View().Groups["writer"]; g.Owner != "n1" || g.Epoch != 3 || g.Advice != nil {
		t.Errorf("in the end %+v", g)
	}
}

// TestLedgerKeepsWhatIsToBeUndone: a planned change that has made a writable server read-only is remembered when it is withdrawn,
// until the next grant. The group waits for nobody meanwhile.
func TestLedgerKeepsWhatIsToBeUndone(t *testing.T) {
	cfg := soloConfig()
	stop := func(online, graceful, writable bool) Op {
		return Op{Advise: &Advice{ID: 7, Group: "writer", Epoch: 1, From: "n1", Online: online, Graceful: graceful, Writable: writable, Over: true}}
	}
	for _, test := range []struct {
		stop Op
		kept bool
	}{{stop(true, true, true), true}, {stop(true, true, false), false}, {stop(true, false, true), false}, {stop(false, true, true), false}} {
		for _, undo := range []bool{false, true} {
			l, at := NewLedger(), Index(0)
			apply := func(ops ...Op) {
				at++
				for _, out := range l.Apply(at, 1, Command{ID: uint64(at), By: "n3", Ops: ops}) {
					if out.Refused != "" {
						t.Fatalf("step %d: %s", at, out.Refused)
					}
				}
			}
			grant := func(prev Epoch, undo bool) Op {
				return Op{Grant: &Grant{Group: "writer", Prev: prev, To: "n1", Incarnation: 1, Seq: 1, TTL: cfg.TTL, Undo: undo}}
			}
			apply(Op{Configure: &cfg})
			apply(grant(0, false))
			apply(test.stop)
			apply(Op{Release: &Release{Group: "writer", Epoch: 1, Node: "n1"}})
			apply(Op{Withdraw: &Withdraw{Group: "writer", ID: 7, Reason: "no start came"}})
			if a := l.View().Groups["writer"].Advice; (a != nil) != test.kept || a != nil && (!a.Over || a.Given != "") {
				t.Errorf("%+v withdrawn: %+v", test.stop.Advise, a)
			}
			apply(grant(1, undo))
			if a := l.View().Groups["writer"].Advice; (a != nil) != (test.kept && undo) || a != nil && a.Given != "n1" {
				t.Errorf("%+v, then a grant with undo %v: %+v", test.stop.Advise, undo, a)
			}
			apply(Op{Release: &Release{Group: "writer", Epoch: 2, Node: "n1"}})
			apply(grant(2, false))
			if a := l.View().Groups["writer"].Advice; a != nil {
				t.Errorf("after another grant: %+v", a)
			}
		}
	}
}
