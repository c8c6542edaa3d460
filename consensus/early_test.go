package consensus

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// rendezvous has the disk of one node wait until another one has what it is to write.
type rendezvous struct {
	mu       sync.Mutex
	waits    string // the directory of the log that waits
	stored   map[uint64]int
	met      int // how many writes found what they waited for
	patience time.Duration
}

func (g *rendezvous) has(index uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.stored[index] > 0
}

// pass waits, if it is for this log to wait.
func (g *rendezvous) pass(dir string, index uint64) {
	g.mu.Lock()
	waits := g.waits == dir
	g.mu.Unlock()
	if !waits {
		return
	}
	met := false
	for by := time.Now().Add(g.patience); !met && time.Now().Before(by); time.Sleep(time.Millisecond) {
		met = g.has(index)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if met {
		g.met++
	}
}

// gated is a host whose logs pass a gate.
type gated struct {
	linux
	gate *rendezvous
}

func (h gated) openLog(dir string) (backend, error) {
	b, err := openBolt(dir)
	return gatedLog{b, h.gate, dir}, err
}

type gatedLog struct {
	backend
	gate *rendezvous
	dir  string
}

func (l gatedLog) StoreLogs(ls []*raft.Log) error {
	if ls[0].Type == raft.LogCommand {
		l.gate.pass(l.dir, ls[0].Index)
	}
	err := l.backend.StoreLogs(ls)
	l.gate.mu.Lock()
	defer l.gate.mu.Unlock()
	for _, e := range ls {
		l.gate.stored[e.Index]++
	}
	return err
}

// A follower has a command on disk before its leader has.
func TestFollowersWriteBesideTheLeader(t *testing.T) {
	g := &rendezvous{stored: map[uint64]int{}, patience: 500 * time.Millisecond}
	c := newCluster(t, "db1", "db2", "db3")
	c.host = gated{gate: g}
	c.startAll()
	c.commit()
	l := c.leader()
	g.mu.Lock()
	g.waits = l.store.log.dir
	g.mu.Unlock()
	met := func() int {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.met
	}
	// A busy disk may keep a follower from being first now and then.
	for range 20 {
		if met() >= 5 {
			return
		}
		c.commit()
	}
	t.Errorf("of 20 commands the leader wrote %d after a follower, want 5", met())
}

func TestAnEarlyAnswerIsForTheSameAppendOnce(t *testing.T) {
	n := &Node{ctx: t.Context(), lim: limits{rpc: time.Minute}}
	request := raft.AppendEntriesRequest{Term: 3, PrevLogEntry: 7, PrevLogTerm: 2, LeaderCommitIndex: 7, Entries: []*raft.Log{{Index: 8, Term: 3}}}
	sent := func(at time.Time, success bool) {
		e := &early{request: request, sent: at, reply: raft.AppendEntriesResponse{Term: 3, LastLog: 8, Success: success}, done: make(chan struct{})}
		if !n.earlies.begin("db2", e) {
			t.Fatal("an append is not begun although none is on its way")
		}
		if n.earlies.begin("db2", &early{done: make(chan struct{})}) {
			t.Fatal("a second append is begun while the first is on its way")
		}
		close(e.done)
	}
	var r raft.AppendEntriesResponse
	sent(time.Now(), true)
	for what, change := range map[string]func(*raft.AppendEntriesRequest){
		"another term":               func(a *raft.AppendEntriesRequest) { a.Term++ },
		"another position":           func(a *raft.AppendEntriesRequest) { a.PrevLogEntry-- },
		"another entry before":       func(a *raft.AppendEntriesRequest) { a.PrevLogTerm++ },
		"more that is committed":     func(a *raft.AppendEntriesRequest) { a.LeaderCommitIndex++ },
		"one more entry":             func(a *raft.AppendEntriesRequest) { a.Entries = append(a.Entries, &raft.Log{Index: 9, Term: 3}) },
		"the news of a commit alone": func(a *raft.AppendEntriesRequest) { a.Entries = nil },
	} {
		other := request
		if change(&other); n.answerEarly("db2", &other, &r) {
			t.Errorf("a call with %s is answered for the one that was sent", what)
		}
	}
	if n.answerEarly("db3", &request, &r) {
		t.Error("the answer of db2 is taken for one of db3")
	}
	if !n.answerEarly("db2", &request, &r) || !r.Success || r.LastLog != 8 {
		t.Errorf("the same call is answered with %+v", r)
	}
	if n.answerEarly("db2", &request, &r) {
		t.Error("an answer is given twice")
	}
	sent(time.Now(), false)
	if n.answerEarly("db2", &request, &r) {
		t.Error("a follower that has not got the entries counts")
	}
	sent(time.Now().Add(-time.Hour), true)
	if n.answerEarly("db2", &request, &r) {
		t.Error("an answer of long ago is taken for a sign of life")
	}
}

func TestANodeThatEndsWaitsForNoEarlyAnswer(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	n := &Node{ctx: ctx, lim: limits{rpc: time.Minute}}
	var request raft.AppendEntriesRequest
	n.earlies.begin("db2", &early{sent: time.Now(), reply: raft.AppendEntriesResponse{Success: true}, done: make(chan struct{})})
	stop()
	if n.answerEarly("db2", &request, new(raft.AppendEntriesResponse)) {
		t.Error("an answer that has not come is taken")
	}
}

// What the next entries may follow is the last that was written: not one that is on its way, or that the disk did not take.
func TestTheLeadersLogNotesWhatIsWritten(t *testing.T) {
	d := newDrive(1)
	s, err := openStore(t.TempDir(), func(string) (backend, error) { return opened{d: d}, nil }, time.Minute, slog.New(slog.DiscardHandler))
	must(t, err)
	defer s.Close()
	l := &leaderLog{store: s, n: &Node{}}
	must(t, l.StoreLogs(entries(1, 3, 10)))
	want := place{3, entries(3, 1, 10)[0].Term}
	must(t, l.StoreLogs(nil))
	if l.last != want {
		t.Errorf("after a batch up to 3 the last is %+v, want %+v", l.last, want)
	}
	d.trips(func() {
		if l.last != want {
			t.Errorf("while 4 is written the last is %+v, want %+v", l.last, want)
		}
	})
	d.fail(time.Minute)
	if err := l.StoreLogs(entries(4, 1, 10)); err == nil || l.last != want {
		t.Errorf("after a write that ended with %v the last is %+v, want %+v", err, l.last, want)
	}
}

func TestOnlyWhatFollowsTheLeadersOwnEntryIsSentEarly(t *testing.T) {
	command := []*raft.Log{{Index: 8, Term: 3, Type: raft.LogCommand}}
	for what, tt := range map[string]struct {
		before place
		ls     []*raft.Log
		term   uint64
		may    bool
	}{
		"a command after one of the term":     {place{7, 3}, command, 3, true},
		"after an entry of an earlier term":   {place{7, 2}, command, 3, false},
		"after an entry that is not there":    {place{6, 3}, command, 3, false},
		"an entry of an earlier term":         {place{7, 2}, []*raft.Log{{Index: 8, Term: 2}}, 3, false},
		"an entry of a term that is not ours": {place{7, 3}, command, 4, false},
		"an earlier entry after one of ours":  {place{7, 4}, command, 4, false},
		"after a later entry":                 {place{7, 4}, command, 3, false},
		"a change of the members":             {place{7, 3}, []*raft.Log{{Index: 8, Term: 3, Type: raft.LogConfiguration}}, 3, false},
		"nothing":                             {place{7, 3}, nil, 3, false},
	} {
		if mayPrecede(tt.before, tt.ls, tt.term) != tt.may {
			t.Errorf("%s: sent early %t, want %t", what, !tt.may, tt.may)
		}
	}
}
