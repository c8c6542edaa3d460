package trace

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-ha/remora/core"
)

// node is a recorder with a clock of its own.
type node struct {
	name core.NodeName
	r    *Recorder
	now  core.Instant
}

// newNode's clock stands somewhere, as that of any node.
func newNode(name core.NodeName, clock time.Duration) *node {
	return &node{name: name, r: NewRecorder(), now: core.Instant(clock)}
}

// after lets time pass on the node's clock; then something happens there.
func (n *node) after(d time.Duration, ev core.Event, actions ...core.Action) {
	n.now = n.now.Add(d)
	n.r.Observe(n.now, ev, actions)
}

const us = time.Microsecond

var (
	request = core.ReleaseRequest{Group: "writer", Epoch: 7, Reason: "mysqld died"}
	grant   = core.Command{Ops: []core.Op{{Release: &core.Release{Group: "writer", Epoch: 7, Node: "db1"}},
		{Grant: &core.Grant{Group: "writer", Prev: 7, To: "db2"}}}}
	committed = core.Committed{Command: grant, Outcomes: make([]core.Outcome, 2)}
	notice    = core.Received{From: "mgr", Msg: core.Notice{Group: "writer", State: core.GroupState{Epoch: 8, Owner: "db2"}}}
)

func serving(e core.Epoch) core.Report {
	return core.Report{Holds: []core.Holding{{Group: "writer", Epoch: e, Phase: core.Serving}}}
}

// giveUp is the old owner's part: 400 µs from the fault to the request, and 3 ms until it hears of the grant.
func giveUp(n *node) {
	n.after(0, core.HealthChanged{}, core.Unbind{Group: "writer", Epoch: 7})
	n.after(400*us, core.UnbindDone{Group: "writer", Epoch: 7, Gone: true}, core.Send{To: "mgr", Msg: request})
	n.after(10*us, core.Received{From: n.name, Msg: request})       // everybody is asked, whoever is the arbiter
	n.after(10*us, core.Tick{}, core.Send{To: "mgr", Msg: request}) // once more
	n.after(2980*us, notice)
	n.after(time.Millisecond, core.Received{From: "db2", Msg: serving(8)})
}

// decide is the arbiter's: 2 ms from the request to the commit, and 1.5 ms until it hears that the group is served.
func decide(n *node) {
	n.after(100*us, core.Received{From: "db1", Msg: request}, core.Propose{Command: grant})
	n.after(2000*us, committed)
	n.after(1500*us, core.Received{From: "db2", Msg: serving(8)})
	n.after(60*us, core.Received{From: "db2", Msg: serving(8)})
}

// claim, whose node was asked before and after the news, is the new owner's: 600 µs from the news to the open fence, and 50 µs to the announcement.
func claim(n *node) {
	n.after(0, core.Received{From: "db1", Msg: request})
	n.after(0, notice)
	n.after(0, core.Received{From: "db1", Msg: request}, core.Bind{Group: "writer", Epoch: 8})
	n.now = n.now.Add(500 * us)
	n.r.Mark("writer", 8, Bound, n.now)
	n.after(100*us, core.BindDone{Group: "writer", Epoch: 8})
	n.now = n.now.Add(50 * us)
	n.r.Mark("writer", 8, Announced, n.now)
	n.after(time.Millisecond, committed) // its own log is later than the notice
}

func pieces(ns ...*node) (ps []Piece) {
	for _, n := range ns {
		ps = append(ps, n.r.Pieces(n.name)...)
	}
	return ps
}

func ptr(us int64) *int64 { return &us }

func TestThreeNodes(t *testing.T) {
	db1, db2, mgr := newNode("db1", time.Hour), newNode("db2", time.Minute), newNode("mgr", 400*time.Hour)
	mgr.after(0, core.Received{From: "db1", Msg: serving(7)})
	giveUp(db1)
	decide(mgr)
	claim(db2)
	got := Join(pieces(db2, mgr, db1), "writer", 8, "db1", "db2", nil)
	want := Takeover{
		Pieces: []Piece{
			{"db1", "writer", 8, []Mark{{"giving_up", 0}, {"unbound", 400}, {"release_sent", 400}, {"granted", 3400}}},
			{"mgr", "writer", 8, []Mark{{"release_came", 0}, {"proposed", 0}, {"granted", 2000}, {"serving_heard", 3500}}},
			{"db2", "writer", 8, []Mark{{"granted", 0}, {"bind_begun", 0}, {"bound", 500}, {"fence_open", 600}, {"announced", 650}}},
		},
		// 3,000 µs from request to news, of which 2,000 were the arbiter's; 1,500 from commit to report, of which 600 the claim.
		Ways:    []Way{{"db1", "mgr", 1000}, {"mgr", "db2", 900}},
		LeastUS: ptr(400 + 2000 + 650), MostUS: ptr(400 + 2000 + 650 + 1900), Missing: []string{},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// The old owner's host is gone: what is known begins with its last word to the arbiter.
func TestVanishedOwner(t *testing.T) {
	db2, mgr := newNode("db2", time.Minute), newNode("mgr", time.Hour)
	mgr.after(0, core.Received{From: "db1", Msg: serving(7)})
	mgr.after(60*time.Millisecond, core.Received{From: "db1", Msg: serving(7)})
	mgr.after(310*time.Millisecond, core.Tick{}, core.Propose{Command: grant})
	mgr.after(2*time.Millisecond, core.ProposalFailed{})
	mgr.after(5*time.Millisecond, core.Tick{}, core.Propose{Command: grant})
	mgr.after(2*time.Millisecond, committed)
	mgr.after(1500*us, core.Received{From: "db2", Msg: serving(8)})
	claim(db2)
	got := Join(pieces(db2, mgr), "writer", 8, "db1", "db2", map[string]string{"db1": "the daemon can not be reached"})
	want := []Mark{{"last_word", 0}, {"proposed", 317_000}, {"granted", 319_000}, {"serving_heard", 320_500}}
	if diff := cmp.Diff(want, got.Pieces[0].Marks); diff != "" {
		t.Errorf("the arbiter's (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]string{"the part of db1 is not known: the daemon can not be reached"}, got.Missing); diff != "" {
		t.Errorf("missing (-want +got)\n%s", diff)
	}
	if *got.LeastUS != 319_650 || *got.MostUS != 320_550 {
		t.Errorf("%d to %d µs", *got.LeastUS, *got.MostUS)
	}
}

// A group that is handed over: the arbiter comes first, then the old owner, then the new one, which waits for the old one's word.
func TestHandover(t *testing.T) {
	handover := core.Command{Ops: []core.Op{{Grant: &core.Grant{Group: "writer", Prev: 7, To: "db2", Handover: true}}}}
	came := core.Received{From: "db1", Msg: request}
	db1, db2, mgr := newNode("db1", time.Hour), newNode("db2", time.Minute), newNode("mgr", 400*time.Hour)
	mgr.after(0, core.Received{From: "db1", Msg: serving(7)})
	mgr.after(time.Millisecond, core.MoveAsked{}, core.Propose{Command: handover})
	mgr.after(900*us, core.Committed{Command: handover, Outcomes: make([]core.Outcome, 1)})
	mgr.after(700*us, came)
	db1.after(0, notice, core.Unbind{Group: "writer", Epoch: 7})
	db1.after(400*us, core.UnbindDone{Group: "writer", Epoch: 7, Gone: true}, core.Send{To: "db2", Msg: request})
	db1.after(1200*us, core.Received{From: "db2", Msg: serving(8)})
	db2.after(0, notice)
	db2.after(500*us, came, core.Bind{Group: "writer", Epoch: 8})
	db2.now = db2.now.Add(500 * us)
	db2.r.Mark("writer", 8, Bound, db2.now)
	db2.after(100*us, core.BindDone{Group: "writer", Epoch: 8})
	db2.now = db2.now.Add(50 * us)
	db2.r.Mark("writer", 8, Announced, db2.now)
	got := Join(pieces(db2, mgr, db1), "writer", 8, "db1", "db2", nil)
	want := Takeover{
		Pieces: []Piece{
			{"db1", "writer", 8, []Mark{{"giving_up", 0}, {"granted", 0}, {"unbound", 400}, {"release_sent", 400}, {"serving_heard", 1600}}},
			{"mgr", "writer", 8, []Mark{{"proposed", 0}, {"granted", 900}, {"release_came", 1600}}},
			{"db2", "writer", 8, []Mark{{"granted", 0}, {"freed", 500}, {"bind_begun", 500}, {"bound", 1000}, {"fence_open", 1100}, {"announced", 1150}}},
		},
		// 700 µs from commit to the word, of which 400 were the old owner's; 1,200 from the word to the report, of which 600 the claim.
		Ways:    []Way{{"mgr", "db1", 300}, {"db1", "db2", 600}},
		LeastUS: ptr(900 + 400 + 650), MostUS: ptr(900 + 400 + 650 + 900), Missing: []string{},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// A clock that saw two parts needs no way between them.
func TestArbiterIsAnOwner(t *testing.T) {
	t.Run("old", func(t *testing.T) {
		db1, db2 := newNode("db1", time.Hour), newNode("db2", time.Minute)
		db1.after(0, core.HealthChanged{}, core.Unbind{Group: "writer", Epoch: 7})
		db1.after(400*us, core.UnbindDone{Group: "writer", Epoch: 7, Gone: true}, core.Send{To: "db1", Msg: request})
		decide(db1)
		claim(db2)
		got := Join(pieces(db1, db2), "writer", 8, "db1", "db2", nil)
		if len(got.Pieces) != 2 || len(got.Ways) != 1 || *got.LeastUS != 2500+650 || *got.MostUS != 2500+650+900 {
			t.Errorf("%+v, %d to %d µs", got, *got.LeastUS, *got.MostUS)
		}
	})
	t.Run("new", func(t *testing.T) {
		db1, db2 := newNode("db1", time.Hour), newNode("db2", time.Minute)
		giveUp(db1)
		db2.after(0, core.Received{From: "db1", Msg: request}, core.Propose{Command: grant})
		db2.after(2000*us, committed, core.Bind{Group: "writer", Epoch: 8})
		db2.after(600*us, core.BindDone{Group: "writer", Epoch: 8})
		db2.now = db2.now.Add(50 * us)
		db2.r.Mark("writer", 8, Announced, db2.now)
		got := Join(pieces(db1, db2), "writer", 8, "db1", "db2", nil)
		if len(got.Pieces) != 2 || len(got.Ways) != 1 || *got.LeastUS != 400+2650 || *got.MostUS != 400+2650+1000 {
			t.Errorf("%+v, %d to %d µs", got, *got.LeastUS, *got.MostUS)
		}
	})
	t.Run("both", func(t *testing.T) {
		db1 := newNode("db1", time.Hour)
		db1.after(0, core.HealthChanged{}, core.Unbind{Group: "writer", Epoch: 7})
		db1.after(400*us, core.UnbindDone{Group: "writer", Epoch: 7, Gone: true}, core.Send{To: "db1", Msg: request})
		decide(db1)
		claim(db1)
		got := Join(pieces(db1), "writer", 8, "db1", "db1", nil)
		if len(got.Pieces) != 1 || len(got.Ways) != 0 || *got.LeastUS != *got.MostUS {
			t.Errorf("%+v, %d to %d µs", got, *got.LeastUS, *got.MostUS)
		}
	})
}

// A node that takes back what it has given up saw both ends.
func TestOldOwnerIsTheNew(t *testing.T) {
	db1, mgr := newNode("db1", time.Hour), newNode("mgr", time.Minute)
	giveUp(db1)
	decide(mgr)
	claim(db1)
	got := Join(pieces(db1, mgr), "writer", 8, "db1", "db1", nil)
	if len(got.Pieces) != 2 || len(got.Ways) != 1 || *got.LeastUS != 3400+1000+650 || *got.LeastUS != *got.MostUS {
		t.Errorf("%+v, %d to %d µs", got, *got.LeastUS, *got.MostUS)
	}
}

// The owner of a long gone epoch has no last word.
func TestWordOfAnEarlierEpoch(t *testing.T) {
	mgr := newNode("mgr", time.Hour)
	mgr.after(0, core.Received{From: "db1", Msg: serving(3)})
	mgr.after(time.Hour, core.Tick{}, core.Propose{Command: grant})
	if diff := cmp.Diff([]Mark{{"proposed", 0}}, mgr.r.Pieces("mgr")[0].Marks); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestNothingIsKnown(t *testing.T) {
	got := Join(nil, "writer", 8, "db1", "db2", map[string]string{"db2": "gone"})
	if len(got.Missing) != 3 || got.LeastUS != nil || got.MostUS != nil || !strings.HasSuffix(got.Missing[2], "db2 is not known: gone") {
		t.Errorf("%+v", got)
	}
}

// An aborted switchover leaves no drain behind, and a server that is made read-only for another reason is none.
func TestDrain(t *testing.T) {
	n := newNode("db1", time.Hour)
	drain := core.DemoteServer{Group: "writer", Epoch: 7, Drain: time.Second}
	n.after(0, core.Tick{}, drain)
	n.after(time.Second, core.Committed{Command: core.Command{Ops: []core.Op{{Abort: &core.Abort{Group: "writer", Epoch: 7}}}}, Outcomes: make([]core.Outcome, 1)})
	n.after(time.Hour, core.Tick{}, core.Unbind{Group: "writer", Epoch: 7}, core.DemoteServer{Group: "writer", Epoch: 7})
	if diff := cmp.Diff([]Mark{{"giving_up", 0}}, n.r.Pieces("db1")[0].Marks); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	n.after(time.Hour, core.Tick{}, core.DemoteServer{Group: "writer", Epoch: 8, Drain: time.Second})
	n.after(0, core.Tick{}, core.DemoteServer{Group: "writer", Epoch: 9}) // a stray writer
	n.after(3*time.Millisecond, core.ServerDemoted{}, core.Unbind{Group: "writer", Epoch: 8})
	if diff := cmp.Diff([]Mark{{"drain_begun", 0}, {"giving_up", 3000}}, n.r.Pieces("db1")[1].Marks); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	n.after(time.Hour, core.Tick{}, core.Unbind{Group: "writer", Epoch: 9})
	if diff := cmp.Diff([]Mark{{"giving_up", 0}}, n.r.Pieces("db1")[2].Marks); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestOnlyTheLastAreKept(t *testing.T) {
	n := newNode("db1", time.Hour)
	for e := core.Epoch(1); e <= kept+3; e++ {
		n.after(time.Second, core.Tick{}, core.Unbind{Group: "writer", Epoch: e})
	}
	ps := n.r.Pieces("db1")
	if len(ps) != kept || ps[0].Epoch != 5 || ps[kept-1].Epoch != kept+4 {
		t.Errorf("%d pieces, the first of epoch %d, the last of %d", len(ps), ps[0].Epoch, ps[len(ps)-1].Epoch)
	}
}

// Recording is on the path of a takeover: it may need no memory.
func TestRecordingNeedsNoMemory(t *testing.T) {
	n := newNode("db1", time.Hour)
	n.r.Observe(n.now, core.Received{From: "db2", Msg: serving(1)}, nil) // a group's first report makes it known
	events := []core.Event{committed, notice, core.Received{From: "db1", Msg: request}, core.Received{From: "db2", Msg: serving(8)},
		core.UnbindDone{Group: "writer", Epoch: 7, Gone: true}, core.BindDone{Group: "writer", Epoch: 8}}
	actions := []core.Action{core.Unbind{Group: "writer", Epoch: 7}, core.Bind{Group: "writer", Epoch: 8}, core.Propose{Command: grant},
		core.Send{To: "mgr", Msg: request}}
	if n := testing.AllocsPerRun(100, func() {
		for _, ev := range events {
			n.now = n.now.Add(us)
			n.r.Observe(n.now, ev, actions)
		}
		n.r.Mark("writer", 8, Announced, n.now)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkObserve shows what recording costs a step.
func BenchmarkObserve(b *testing.B) {
	for name, ev := range map[string]core.Event{"tick": core.Tick{}, "report": core.Received{From: "db2", Msg: serving(8)}, "grant": committed} {
		b.Run(name, func(b *testing.B) {
			n := newNode("db1", time.Hour)
			actions := []core.Action{core.SetTimer{At: 1}}
			b.ReportAllocs()
			for b.Loop() {
				n.r.Observe(n.now, ev, actions)
			}
		})
	}
}

// Phases are told on the node on which they happen, once, however often a message comes again.
func TestPhases(t *testing.T) {
	db1, db2, mgr := newNode("db1", time.Hour), newNode("db2", time.Minute), newNode("mgr", 400*time.Hour)
	got := map[string]time.Duration{}
	for _, n := range []*node{db1, db2, mgr} {
		n.r.OnPhase(func(p Phase, took time.Duration) { got[string(n.name)+" "+p.Name] += took })
	}
	mgr.after(0, core.Received{From: "db1", Msg: serving(7)})
	giveUp(db1)
	decide(mgr)
	claim(db2)
	want := map[string]time.Duration{"db1 unbind": 400 * us, "db1 release": 3000 * us, "mgr decide": 0, "mgr commit": 2000 * us,
		"db2 react": 0, "db2 bind": 500 * us, "db2 fence": 100 * us, "db2 announce": 50 * us}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
