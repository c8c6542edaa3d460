package consensus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/remora-ha/remora/core"
)

// pipes is a network of pipes between Raft's transports.
type pipes struct {
	ends map[raft.ServerAddress]*pipeEnd

	mu     sync.Mutex
	conns  []net.Conn
	closed bool
}

func (ps *pipes) add(at raft.ServerAddress) *pipeEnd {
	ps.ends[at] = &pipeEnd{all: ps, at: at, queue: make(chan net.Conn), ended: make(chan struct{})}
	return ps.ends[at]
}

// cut ends all that is open.
func (ps *pipes) cut() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.closed = true
	for _, c := range ps.conns {
		c.Close()
	}
}

// pipeEnd is the stream layer of one of them.
type pipeEnd struct {
	all   *pipes
	at    raft.ServerAddress
	queue chan net.Conn
	once  sync.Once
	ended chan struct{}
}

func (p *pipeEnd) Dial(to raft.ServerAddress, _ time.Duration) (net.Conn, error) {
	near, far := net.Pipe()
	p.all.mu.Lock()
	p.all.conns = append(p.all.conns, near, far)
	closed := p.all.closed
	p.all.mu.Unlock()
	if closed {
		return nil, net.ErrClosed
	}
	select {
	case p.all.ends[to].queue <- far:
		return near, nil
	case <-p.all.ends[to].ended:
		return nil, net.ErrClosed
	}
}

func (p *pipeEnd) Accept() (net.Conn, error) {
	select {
	case c := <-p.queue:
		return c, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}

func (p *pipeEnd) Close() error {
	p.once.Do(func() { close(p.ended) })
	return nil
}

func (p *pipeEnd) Addr() net.Addr { return &net.UnixAddr{Name: string(p.at)} }

// answer is what a follower says to an append. A zero term stands for that of the call.
type answer struct {
	raft.AppendEntriesResponse
	err   error
	after time.Duration
}

var (
	yes     = answer{AppendEntriesResponse: raft.AppendEntriesResponse{Success: true}}
	no      = answer{}
	silence = answer{after: time.Hour}
)

// scripted is a follower that gives everybody its vote, and answers the appends of entries as it is told. It tells what it was
// sent, in the order in which that came.
type scripted struct {
	trans *raft.NetworkTransport
	l     *led

	mu     sync.Mutex
	script func(call int, a *raft.AppendEntriesRequest) answer
	calls  []*raft.AppendEntriesRequest
}

// says has the follower answer so from now on, and forget what it was sent.
func (f *scripted) says(script func(call int, a *raft.AppendEntriesRequest) answer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.script, f.calls = script, nil
}

// saysFirst has the follower answer so to the first call, and to none after it.
func (f *scripted) saysFirst(first answer) {
	f.says(func(call int, _ *raft.AppendEntriesRequest) answer {
		if call == 0 {
			return first
		}
		return silence
	})
}

func (f *scripted) sent() []*raft.AppendEntriesRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

func (f *scripted) reply(a *raft.AppendEntriesRequest) answer {
	f.mu.Lock()
	defer f.mu.Unlock()
	if at := f.l.raft.Load().CommitIndex(); a.LeaderCommitIndex > at {
		f.l.t.Errorf("a follower is told that %d is committed, when it is %d", a.LeaderCommitIndex, at)
	}
	if len(a.Entries) == 0 {
		return yes
	}
	f.calls = append(f.calls, a)
	return f.script(len(f.calls)-1, a)
}

func (f *scripted) serve(ctx context.Context) {
	for {
		select {
		case rpc := <-f.trans.Consumer():
			go func() {
				switch c := rpc.Command.(type) {
				case *raft.RequestPreVoteRequest:
					rpc.Respond(&raft.RequestPreVoteResponse{Term: c.Term, Granted: true}, nil)
				case *raft.RequestVoteRequest:
					rpc.Respond(&raft.RequestVoteResponse{Term: c.Term, Granted: true}, nil)
				case *raft.AppendEntriesRequest:
					r := f.reply(c)
					if !sleep(ctx, r.after) {
						r.err = ctx.Err()
					}
					if r.Term == 0 {
						r.Term = c.Term
					}
					rpc.Respond(&r.AppendEntriesResponse, r.err)
				}
			}()
		case <-ctx.Done():
			return
		}
	}
}

// led is a node that leads scripted followers: its Raft, its log and its calls are the real ones, over pipes.
type led struct {
	*Node
	t         *testing.T
	drive     *drive
	followers []*scripted

	mu       sync.Mutex
	outcomes map[uint64]core.Event
}

// lead runs a test of a leader in virtual time.
func lead(t *testing.T, test func(l *led)) {
	dir := t.TempDir()
	defer endBubble()
	synctest.Test(t, func(t *testing.T) {
		l := &led{t: t, drive: newDrive(1), outcomes: map[uint64]core.Event{}}
		n := &Node{id: "db1#1", lim: limits{rpc: 10 * time.Second, redial: 20 * time.Millisecond, enqueue: time.Second, disk: time.Hour},
			log: slog.New(slog.DiscardHandler), beats: newBeats(), opened: time.Now(), cfg: Config{Deliver: l.took}}
		n.ctx, n.stop = context.WithCancel(context.Background())
		n.fsm = &adapter{n: n, ledger: &fakeLedger{}}
		disk := opened{d: l.drive, killed: make(chan struct{})}
		var err error
		n.store, err = openStore(dir, func(string) (backend, error) { return disk, nil }, n.lim.disk, n.log)
		must(t, err)
		l.Node = n
		logger := newRaftLogger(n.log)
		config := raft.DefaultConfig()
		config.LocalID, config.Logger, config.NoLegacyTelemetry = n.id, logger, true
		wires, servers := &pipes{ends: map[raft.ServerAddress]*pipeEnd{}}, raft.Configuration{}
		over := func(id raft.ServerID) *raft.NetworkTransport {
			servers.Servers = append(servers.Servers, raft.Server{Suffrage: raft.Voter, ID: id, Address: raft.ServerAddress(id)})
			return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{Logger: logger, Stream: wires.add(raft.ServerAddress(id)),
				MaxPool: maxPool, Timeout: n.lim.rpc, MaxRPCsInFlight: 1, MsgpackUseNewTimeFormat: true})
		}
		n.trans = &transport{n: n, NetworkTransport: over(n.id)}
		for _, id := range []raft.ServerID{"db2#2", "mgr#3"} {
			f := &scripted{trans: over(id), l: l}
			f.says(func(int, *raft.AppendEntriesRequest) answer { return yes })
			l.followers = append(l.followers, f)
			go f.serve(n.ctx)
		}
		snaps := raft.NewInmemSnapshotStore()
		must(t, raft.BootstrapCluster(config, n.store, n.store, snaps, nil, servers))
		cache, err := raft.NewLogCache(cachedLogs, &leaderLog{store: n.store, n: n})
		must(t, err)
		r, err := raft.NewRaft(config, n.fsm, cache, n.store, snaps, n.trans)
		must(t, err)
		n.raft.Store(r)
		l.until("it leads", func() bool {
			return r.State() == raft.Leader && n.trans.stillLeads(r.CurrentTerm(), "db2#2") && r.AppliedIndex() == r.LastIndex()
		})
		test(l)
		n.stop()
		must(t, r.Shutdown().Error())
		must(t, n.trans.Close())
		for _, f := range l.followers {
			must(t, f.trans.Close())
		}
		wires.cut()
		n.wg.Wait()
		must(t, n.store.Close())
	})
}

// took keeps what became of proposals.
func (l *led) took(e core.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch e := e.(type) {
	case core.Committed:
		l.outcomes[e.Command.ID] = e
	case core.ProposalFailed:
		l.outcomes[e.ID] = e
	}
}

// outcome returns what became of a proposal, nil if nobody has said so yet.
func (l *led) outcome(id uint64) core.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.outcomes[id]
}

func (l *led) isCommitted(id uint64) bool {
	_, ok := l.outcome(id).(core.Committed)
	return ok
}

func (l *led) propose(id uint64) { l.submit(proposal{command: core.Command{ID: id}}) }

// until waits for something that takes a few seconds at most.
func (l *led) until(what string, ok func() bool) {
	l.t.Helper()
	for range 20_000 {
		if ok() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	l.t.Fatalf("not within 20 s: %s", what)
}

// all has both followers do the same.
func (l *led) all(do func(f *scripted)) {
	for _, f := range l.followers {
		do(f)
	}
}

// The answer to an early append counts if it says that the follower has the entries, and was asked for a moment ago. Any other
// is as good as none: Raft makes its own call, and until that is answered well nothing is committed and nobody is told so.
func TestOnlyAFollowerThatHasTheEntriesCounts(t *testing.T) {
	accepts := func(term uint64) answer {
		return answer{AppendEntriesResponse: raft.AppendEntriesResponse{Term: term, Success: true}}
	}
	for what, tt := range map[string]struct {
		early  answer
		stalls time.Duration // the leader's own write
		counts bool
	}{
		"it has them":                       {early: yes, counts: true},
		"it has them late":                  {early: answer{AppendEntriesResponse: yes.AppendEntriesResponse, after: time.Second}, counts: true},
		"it has them before the leader":     {early: yes, stalls: time.Second, counts: true},
		"it lacks the entry before":         {early: answer{AppendEntriesResponse: raft.AppendEntriesResponse{NoRetryBackoff: true}}},
		"its disk fails":                    {early: no},
		"its disk fails after a while":      {early: answer{after: 100 * time.Millisecond}},
		"it is in another term":             {early: answer{AppendEntriesResponse: raft.AppendEntriesResponse{Term: 1 << 40}}},
		"it has them and is in a later one": {early: accepts(1 << 40)},
		"it says that it can not":           {early: answer{AppendEntriesResponse: yes.AppendEntriesResponse, err: errors.New("shutting down")}},
		"it says nothing":                   {early: silence},
		"it answered long ago":              {early: yes, stalls: 11 * time.Second},
	} {
		t.Run(what, func(t *testing.T) {
			lead(t, func(l *led) {
				l.all(func(f *scripted) { f.saysFirst(tt.early) })
				if tt.stalls > 0 {
					l.drive.stall(tt.stalls)
				}
				began, before := time.Now(), l.raft.Load().CommitIndex()
				l.propose(1)
				time.Sleep(15 * time.Second)
				if done := l.isCommitted(1); done != tt.counts {
					t.Errorf("after %v it is committed: %t, want %t", time.Since(began), done, tt.counts)
				}
				if tt.counts {
					return
				}
				if at := l.raft.Load().CommitIndex(); at != before {
					t.Errorf("%d is committed, was %d", at, before)
				}
				l.all(func(f *scripted) {
					if len(f.sent()) < 2 {
						t.Errorf("the follower was sent %d calls, want Raft's own after the early one", len(f.sent()))
					}
				})
			})
		})
	}
}

// A leader that could not write what it has sent leads again later, and has another entry in that place. The answer to the first
// says nothing of the second.
func TestAnEarlyAnswerOfAnEarlierTermIsNone(t *testing.T) {
	lead(t, func(l *led) {
		r := l.raft.Load()
		before, term := r.CommitIndex(), r.CurrentTerm()
		l.all(func(f *scripted) {
			f.saysFirst(answer{AppendEntriesResponse: yes.AppendEntriesResponse, after: 500 * time.Millisecond})
		})
		l.drive.fail(50 * time.Millisecond)
		l.propose(1)
		l.until("it leads in a later term", func() bool { return r.State() == raft.Leader && r.CurrentTerm() > term })
		l.all(func(f *scripted) { l.until("both are sent", func() bool { return len(f.sent()) >= 2 }) })
		time.Sleep(time.Second)
		if at := r.CommitIndex(); at != before {
			t.Errorf("%d is committed, was %d: nobody has said that it has the entry of term %d", at, before, r.CurrentTerm())
		}
		if _, failed := l.outcome(1).(core.ProposalFailed); !failed {
			t.Errorf("who proposed what could not be written is told %+v", l.outcome(1))
		}
		l.all(func(f *scripted) {
			was, is := f.sent()[0], f.sent()[1]
			if was.Term == is.Term || was.PrevLogEntry != is.PrevLogEntry || was.PrevLogTerm != is.PrevLogTerm ||
				was.LeaderCommitIndex != is.LeaderCommitIndex || len(was.Entries) != len(is.Entries) {
				t.Errorf("the calls differ by more than the term, so this shows nothing: %+v, %+v", was, is)
			}
		})
	})
}

// A follower that has one command is not taken to have the next one, too, when Raft's call has both.
func TestAnEarlyAnswerIsForNoMoreThanWasSent(t *testing.T) {
	lead(t, func(l *led) {
		one, other := l.followers[0], l.followers[1]
		other.saysFirst(answer{AppendEntriesResponse: yes.AppendEntriesResponse, after: 10 * time.Millisecond})
		one.says(func(call int, _ *raft.AppendEntriesRequest) answer {
			switch call {
			case 0: // the first command, early
				return no
			case 1: // the first one, by Raft
				return answer{AppendEntriesResponse: yes.AppendEntriesResponse, after: time.Second}
			case 2: // the second one, early
				return answer{AppendEntriesResponse: yes.AppendEntriesResponse, after: 2 * time.Second}
			}
			return silence
		})
		l.propose(1)
		l.until("the first is committed", func() bool { return l.isCommitted(1) })
		for id := uint64(2); id <= 3; id++ {
			l.propose(id)
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(4 * time.Second)
		if l.isCommitted(2) || l.isCommitted(3) {
			t.Error("the third command is committed, which nobody has but the leader")
		}
		if sent := one.sent(); len(sent) != 4 || len(sent[2].Entries) != 1 || len(sent[3].Entries) != 2 || sent[2].LeaderCommitIndex != sent[3].LeaderCommitIndex {
			t.Errorf("the calls are not those that this is about: %s", listed(sent))
		}
	})
}

// A command that follows one that nobody has taken tells of no more commits than that did; the followers see to it that no call
// tells of what is not committed.
func TestWhatFollowsAnUncommittedCommandTellsOfNoCommit(t *testing.T) {
	lead(t, func(l *led) {
		l.all(func(f *scripted) { f.says(func(int, *raft.AppendEntriesRequest) answer { return no }) })
		for id := uint64(1); id <= 2; id++ {
			l.propose(id)
			time.Sleep(100 * time.Millisecond)
		}
		l.all(func(f *scripted) {
			if !slices.ContainsFunc(f.sent(), func(a *raft.AppendEntriesRequest) bool {
				return len(a.Entries) == 1 && a.Entries[0].Index == a.LeaderCommitIndex+2
			}) {
				t.Error("the second command was not sent early")
			}
		})
	})
}

// Only a leader whose disk works sends entries early, and to voters only, itself not among them.
func TestWhoSendsEarlyAndToWhom(t *testing.T) {
	for what, tt := range map[string]struct {
		before func(l *led)
		want   int // calls to each of the others
	}{
		"a leader":                       {func(*led) {}, 1},
		"a leader whose disk stalls":     {func(l *led) { l.store.log.stalled.Store(&trouble{op: opVote}) }, 0},
		"one that has just led":          {func(l *led) { l.drive.fail(time.Second); l.propose(1); time.Sleep(50 * time.Millisecond) }, 0},
		"a leader of two without a vote": {func(l *led) { l.demote() }, 0},
	} {
		t.Run(what, func(t *testing.T) {
			lead(t, func(l *led) {
				r := l.raft.Load()
				tt.before(l)
				l.all(func(f *scripted) { f.says(func(int, *raft.AppendEntriesRequest) answer { return silence }) })
				last, term := r.LastIndex(), r.CurrentTerm()
				l.appendEarly(place{last, term}, []*raft.Log{{Index: last + 1, Term: term, Type: raft.LogCommand}})
				time.Sleep(50 * time.Millisecond)
				l.all(func(f *scripted) {
					if got := len(f.sent()); got != tt.want {
						t.Errorf("a follower was sent %d calls, want %d", got, tt.want)
					}
				})
				if l.earlies.calls[l.id] != nil {
					t.Error("the leader calls itself")
				}
			})
		})
	}
}

// demote takes the followers' votes, and leaves the leader the only voter.
func (l *led) demote() {
	for _, id := range []raft.ServerID{"db2#2", "mgr#3"} {
		must(l.t, l.raft.Load().DemoteVoter(id, 0, time.Second).Error())
	}
	time.Sleep(time.Second) // until they know
}

// listed is for people.
func listed(calls []*raft.AppendEntriesRequest) string {
	var text []string
	for _, a := range calls {
		text = append(text, fmt.Sprintf("%d entries after %d, committed %d", len(a.Entries), a.PrevLogEntry, a.LeaderCommitIndex))
	}
	return strings.Join(text, "; ")
}
