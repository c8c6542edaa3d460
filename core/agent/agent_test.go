package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-ha/remora/core"
)

// inBubble runs a test in virtual time. The bubble itself sees to it that no goroutine is left: it panics if one is
// blocked for ever when the test has ended.
func inBubble(t *testing.T, f func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer func() {
			if r.cancel != nil {
				r.cancel()
			}
			time.Sleep(time.Minute) // so long what was begun may take to end
		}()
		f(t, r)
	})
}

func TestServesAndGoesOnServing(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.serve()
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if !r.kernel.isBound() || r.kernel.count("unbind") != 0 || r.kernel.count("extend") < 30 {
			t.Errorf("after half a minute: bound %t, %d unbinds, %d extends", r.kernel.isBound(), r.kernel.count("unbind"), r.kernel.count("extend"))
		}
		if s, err := r.Status(t.Context()); err != nil || s.Groups[0].Phase != "serving" || s.Groups[0].LeaseLeft <= 0 {
			t.Errorf("status %+v, %v", s.Groups, err)
		}
		if n := r.fed(); n < 29 {
			t.Errorf("the watchdog was fed %d times in 30 s", n)
		}
		r.stop()
	})
}

// The sign of life comes from the loop and nothing else: one that stands still gives none, whatever goes on around it.
func TestALoopThatStandsStillGivesNoSignOfLife(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.serve()
		block := make(chan struct{})
		r.setBlock(block)
		r.Deliver(core.Tick{}) // the loop stands still in this step
		synctest.Wait()
		before := r.fed()
		for range 30 {
			r.TryDeliver(core.Received{From: "n1", Msg: core.Echo{}})
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if n := r.fed(); n != before {
			t.Errorf("the watchdog was fed %d times while the loop stood still for 30 s", n-before)
		}
		r.setBlock(nil)
		close(block)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := r.fed(); n < before+2 {
			t.Errorf("the watchdog was fed %d times in the 2 s after", n-before)
		}
		r.stop()
	})
}

// A report tells the term that its sender is in when it is sent.
func TestI2_AReportTellsTheTermAtSending(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.kernel.setHooks(hooks{arm: func() { r.raft.setTerm(2) }}) // a vote, while the fence is told of the report
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go r.reporter(ctx)
		r.report([]core.Action{core.Arm{Seq: 9}, core.Send{To: "n2", Msg: core.Report{Seq: 9, Term: 1}}})
		synctest.Wait()
		if len(r.raft.sent) != 1 || r.raft.sent[0].(core.Report).Term != 2 {
			t.Errorf("sent %+v, want one report of term 2", r.raft.sent)
		}
	})
}

// What a node tells itself it hears in the term that it is in when its mailbox has it, as it hears others.
func TestI2_OwnMessagesAreHeardInTheTermOfTheirArrival(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.raft.setTerm(2)
		r.do(t.Context(), core.Send{To: "n1", Msg: core.Confirm{Term: 1, Nonce: 5}})
		if got := (<-r.mail).(core.Received); got.From != "n1" || got.Term != 2 {
			t.Errorf("delivered %+v, want one from n1 in term 2", got)
		}
	})
}

// Whoever reads the log may stand still: all that a step asks for has been handed on before it is told of.
func TestTheLogComesLast(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		var sent []int
		r.cfg.Logger = slog.New(logHook{slog.DiscardHandler, func(slog.Record) { sent = append(sent, len(r.raft.sent)) }})
		r.perform(t.Context(), 0, core.Tick{}, []core.Action{core.Note{Text: "granted"}, core.Send{To: "n2", Msg: core.Confirm{Term: 1}}})
		if !slices.Equal(sent, []int{1}) {
			t.Errorf("%d messages had been sent when the log was told, want it told once, after 1", sent)
		}
	})
}

// On one processor of Go's scheduler, what a step begins runs in the order in which it matters and not in that in which it was made
// ready. Mostly: the scheduler now and then looks first for what has stepped aside.
func TestOrderOnOneProcessor(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var began time.Time
		r.cfg.Logger = slog.New(logHook{slog.DiscardHandler, func(line slog.Record) {
			if line.Message == "announced" {
				return // the announcer's own
			}
			r.kernel.begin("log")
			if line.Time != began {
				t.Errorf("a line says %v, the step was at %v", line.Time, began)
			}
		}})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go r.reporter(ctx)
		report := core.Send{To: "n2", Msg: core.Report{}}
		for name, c := range map[string]struct {
			actions []core.Action
			right   func(calls []string) bool
		}{
			"what gives up is first": {[]core.Action{core.Note{}, core.Arm{}, report, core.Unbind{Group: "writer"}},
				func(calls []string) bool { return calls[0] == "unbind" && calls[2] == "log" }},
			"the log is last": {[]core.Action{core.Note{}, core.Arm{}, report, core.Announce{Group: "writer"}},
				func(calls []string) bool { return calls[2] == "log" }},
		} {
			const times = 200
			right := 0
			for range times {
				synctest.Wait() // until the others wait for something to do
				r.kernel.calls, began = nil, time.Now()
				r.perform(ctx, 1, core.Tick{}, c.actions)
				time.Sleep(time.Second) // until all have ended
				synctest.Wait()
				if c.right(r.kernel.calls) {
					right++
				}
			}
			if right < times*4/5 {
				t.Errorf("%s: in %d of %d steps only, the last were %v", name, right, times, r.kernel.calls)
			}
		}
	})
}

// logHook is called for each line of a log.
type logHook struct {
	slog.Handler
	hook func(slog.Record)
}

func (h logHook) Enabled(context.Context, slog.Level) bool { return true }

func (h logHook) Handle(_ context.Context, line slog.Record) error {
	h.hook(line)
	return nil
}

// Without a fence nobody has to be told of a report before it goes out.
func TestAReportWithoutAFenceIsSentAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.perform(t.Context(), 0, core.Tick{}, []core.Action{core.Send{To: "n2", Msg: core.Report{Seq: 9}}})
		if len(r.raft.sent) != 1 {
			t.Errorf("sent %+v, want one report", r.raft.sent)
		}
	})
}

// Of the reports that came while the fence was told of one, the newest alone is sent.
func TestTheNewestReportSupersedesThoseThatWait(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		told, end := make(chan struct{}, 8), make(chan struct{})
		r.kernel.setHooks(hooks{arm: func() {
			told <- struct{}{}
			<-end
		}})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go r.reporter(ctx)
		for seq := core.Seq(1); seq <= 20; seq++ {
			r.report([]core.Action{core.Arm{Seq: seq}, core.Send{To: "n2", Msg: core.Report{Seq: seq}}})
			if seq == 1 {
				<-told
			}
		}
		close(end)
		synctest.Wait()
		if len(r.raft.sent) != 2 || r.raft.sent[0].(core.Report).Seq != 1 || r.raft.sent[1].(core.Report).Seq != 20 {
			t.Errorf("sent %+v, want reports 1 and 20", r.raft.sent)
		}
	})
}

// While a claim hangs and the lease is renewed, announcements without end ask for room, and leave some for claims.
func TestAnnouncementsLeaveRoomForClaims(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		end := make(chan struct{})
		r.kernel.setHooks(hooks{extend: func(context.Context, core.Extend) error { <-end; return nil }})
		r.do(ctx, core.Extend{Group: "writer"})
		synctest.Wait()
		for range 10 * queueSize {
			r.do(ctx, core.Announce{Group: "writer"})
		}
		r.do(ctx, core.Extend{Group: "writer"})
		close(end)
		synctest.Wait()
		if n := r.kernel.count("announce"); n != announcementsMax {
			t.Errorf("%d announcements were kept, want %d", n, announcementsMax)
		}
		if n := r.kernel.count("extend"); n != 2 {
			t.Errorf("%d extends", n)
		}
	})
}

// A full mailbox drops datagrams. Results and events wait for room, and the loop never waits for itself.
func TestFullMailboxDropsDatagramsOnly(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.serve()
		block := make(chan struct{})
		r.setBlock(block)
		r.Deliver(core.Tick{}) // the loop stands still in this step
		synctest.Wait()
		n := 0
		for r.TryDeliver(core.Received{From: "n1", Msg: core.Echo{}}) {
			n++
		}
		if n == 0 || n > mailboxSize {
			t.Fatalf("%d datagrams went in", n)
		}
		delivered := make(chan struct{})
		go func() {
			r.Deliver(failed)
			close(delivered)
		}()
		synctest.Wait()
		select {
		case <-delivered:
			t.Fatal("an event went into a full mailbox")
		default:
		}
		r.setBlock(nil)
		close(block)
		<-delivered
		time.Sleep(50 * time.Millisecond)
		synctest.Wait()
		if r.kernel.isBound() {
			t.Fatal("the event was lost: MySQL has failed and the address is still bound")
		}
		r.stop()
	})
}

// The kernel may take longer for many addresses than a lease is long: it is told of the renewals meanwhile.
func TestABindLongerThanALeaseIsProlonged(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.edit = func(c *core.Config) {
			for i := range 1000 {
				c.Groups[0].Addresses = append(c.Groups[0].Addresses, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 78, byte(i >> 8), byte(i)}), 32))
			}
		}
		r.kernel.setHooks(hooks{bind: func(context.Context, core.Bind) error {
			time.Sleep(500 * time.Millisecond) // the lease is 300 ms long
			r.kernel.set(true)
			return nil
		}})
		r.serve()
		if binds, prolongs := r.kernel.count("bind"), r.kernel.count("prolong"); binds != 1 || prolongs < 2 {
			t.Errorf("%d binds, prolonged %d times", binds, prolongs)
		}
		r.stop()
	})
}

// The orderly end: unbind, read back, release, hand leadership on, and only then the end.
func TestShutdownOrder(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.serve()
		begin := len(r.seen())
		r.Deliver(core.ShutdownAsked{})
		if err := <-r.end; err != nil {
			t.Fatalf("Run returned %v", err)
		}
		if r.kernel.isBound() || r.raft.releases() != 1 {
			t.Fatalf("bound %t, %d releases", r.kernel.isBound(), r.raft.releases())
		}
		var order []string
		for _, s := range r.seen()[begin:] {
			if done, ok := s.event.(core.UnbindDone); ok && done.Gone {
				order = append(order, "gone")
			}
			for _, a := range s.actions {
				switch a := a.(type) {
				case core.Unbind:
					order = append(order, "unbind")
				case core.Propose:
					order = append(order, "propose")
				case core.Stopped:
					order = append(order, "stopped")
				case core.Bind, core.Announce, core.Extend, core.Probe:
					t.Errorf("claimed while stopping: %#v", a)
				}
			}
		}
		want := []string{"unbind", "gone", "propose", "stopped"}
		if len(order) != len(want) {
			t.Fatalf("order %v, want %v", order, want)
		}
		for i := range want {
			if order[i] != want[i] {
				t.Fatalf("order %v, want %v", order, want)
			}
		}
		checkStopped(t, r)
	})
}

// checkStopped asks an agent that has ended; each of its doors must say so, and none may wait.
func checkStopped(t *testing.T, r *rig) {
	t.Helper()
	if _, err := r.Status(t.Context()); !errors.Is(err, ErrStopped) {
		t.Errorf("Status: %v", err)
	}
	if err := r.Move(t.Context(), "writer", "n1", "test"); !errors.Is(err, ErrStopped) {
		t.Errorf("Move: %v", err)
	}
	if err := r.Pause(t.Context(), "", true, "test"); !errors.Is(err, ErrStopped) {
		t.Errorf("Pause: %v", err)
	}
	for range 2 * mailboxSize { // more than fits
		r.Deliver(core.Tick{})
	}
}

func TestAsking(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.serve()
		if err := r.Pause(t.Context(), "writer", true, "test"); err != nil {
			t.Errorf("Pause: %v", err)
		}
		var refused Refusal
		if err := r.Move(t.Context(), "writer", "n1", "test"); !errors.As(err, &refused) || refused == "" {
			t.Errorf("Move to the owner: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		block := make(chan struct{})
		r.setBlock(block) // nobody answers
		r.Deliver(core.Tick{})
		synctest.Wait()
		if err := r.Pause(ctx, "writer", false, "test"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Pause while the loop stands still: %v", err)
		}
		if _, err := r.Status(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Status while the loop stands still: %v", err)
		}
		r.setBlock(nil)
		close(block)
		r.stop()
		if err := r.Move(t.Context(), "writer", "n1", "test"); !errors.Is(err, ErrStopped) {
			t.Errorf("Move after the end: %v", err)
		}
	})
}

// When the context ends in the middle of everything, all goroutines end too.
func TestNoGoroutineIsLeft(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.serve()
		hung := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		r.kernel.setHooks(hooks{
			extend: func(ctx context.Context, _ core.Extend) error { return hung(ctx) },
			unbind: func(ctx context.Context, _ core.Unbind) error { return hung(ctx) },
		})
		time.Sleep(time.Second)
		r.Deliver(failed)
		time.Sleep(time.Millisecond)
		answered := make(chan error)
		go func() { answered <- r.Move(context.Background(), "writer", "n2", "test") }()
		r.cancel()
		if err := <-r.end; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
		if err := <-answered; err == nil {
			t.Error("a move was done by an agent that has ended")
		}
	})
}

// What rides with a report comes after it, so that no renewal waits for it.
func TestReportedComesAfterTheReport(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		sent := []int{}
		r.cfg.Reported = func() { sent = append(sent, len(r.raft.sent)) }
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go r.reporter(ctx)
		r.report([]core.Action{core.Arm{Seq: 9}, core.Send{To: "n2", Msg: core.Report{Seq: 9}}, core.Send{To: "n3", Msg: core.Report{Seq: 9}}})
		synctest.Wait()
		if !slices.Equal(sent, []int{2}) {
			t.Errorf("it was called when so many messages had been sent: %v, want 2", sent)
		}
	})
}
