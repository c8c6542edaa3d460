package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/alarm"
)

// mailboxSize bounds the events that wait. Datagrams that do not fit are dropped, as the network might have done;
// everything else makes its sender wait.
const mailboxSize = 1024

// Config is what an agent is made from.
type Config struct {
	Self    core.NodeName
	Machine *core.Machine
	// Clock reads the lease clock. Claims are checked against it just before they are carried out.
	Clock func() core.Instant
	// Alarms makes the loop's timer; nil means one of the Go runtime.
	Alarms alarm.Maker
	// Asleep tells how long the machine has been suspended since it was booted; a change means a jump. Nil if unknown.
	Asleep    func() time.Duration
	Binder    Binder
	Announcer Announcer
	Consensus Consensus
	// Server acts on the local MySQL for policy promote; nil where no group has it.
	Server Server
	// Observe, if set, sees each event and the actions that followed, on the loop's goroutine. It must not block.
	Observe func(now core.Instant, ev core.Event, actions []core.Action)
	// Reported, if set, is called after each report has been sent, when the process is awake and has nothing more urgent to do.
	// It must not block.
	Reported func()
	// Alive is called at least once in each AliveEvery while the loop runs: the hook of a watchdog.
	Alive      func()
	AliveEvery time.Duration
	Logger     *slog.Logger
}

// Agent runs a machine. Deliver, TryDeliver, Ask and Status may be called from any goroutine.
type Agent struct {
	cfg     Config
	mail    chan core.Event
	asks    chan query
	done    chan struct{}
	ended   context.CancelFunc
	workers map[core.GroupName]*worker
	reports chan armed // what the reporter sends
	waiting map[uint64]chan string
	ticket  uint64
	asleep  time.Duration
	timer   alarm.Alarm
	signed  time.Time    // when the last sign of life was given
	due     core.Instant // what the timer is set to, 0 if it is not known to be set
	stopped bool

	promotion promotion
}

// query is a question to the loop.
type query struct {
	event  func(ticket uint64) core.Event
	answer chan string
	look   func(*core.Machine, core.Instant)
}

// ErrStopped is returned to those who ask an agent that has ended.
var ErrStopped = errors.New("the agent has stopped")

// New returns an agent that does nothing until Run.
func New(cfg Config) *Agent {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.AliveEvery == 0 {
		cfg.AliveEvery = time.Second
	}
	return &Agent{
		cfg: cfg, mail: make(chan core.Event, mailboxSize), asks: make(chan query), done: make(chan struct{}),
		workers: map[core.GroupName]*worker{}, reports: make(chan armed, reportsMax), waiting: map[uint64]chan string{},
	}
}

// Deliver puts an event into the mailbox. It waits for room, but not for an agent that has ended.
func (a *Agent) Deliver(ev core.Event) {
	select {
	case a.mail <- ev:
	case <-a.done:
	}
}

// TryDeliver puts an event into the mailbox if there is room.
func (a *Agent) TryDeliver(ev core.Event) bool {
	select {
	case a.mail <- ev:
		return true
	default:
		return false
	}
}

// Move asks the arbiter on this node to move a group, and waits until the group is served there or the move has failed.
// The reason of a refusal is returned as an error.
func (a *Agent) Move(ctx context.Context, group core.GroupName, to core.NodeName, reason string) error {
	return a.ask(ctx, func(t uint64) core.Event { return core.MoveAsked{Ticket: t, Group: group, To: to, Reason: reason} })
}

// Pause asks the arbiter on this node to freeze a group, or thaw it. No name means all groups.
func (a *Agent) Pause(ctx context.Context, group core.GroupName, on bool, reason string) error {
	return a.ask(ctx, func(t uint64) core.Event { return core.PauseAsked{Ticket: t, Group: group, On: on, Reason: reason} })
}

// Promote asks the arbiter on this node to promote a node for a group that nobody owns, and waits until it serves. With
// acceptLoss transactions that it lacks are given up.
func (a *Agent) Promote(ctx context.Context, group core.GroupName, to core.NodeName, acceptLoss bool, reason string) error {
	return a.ask(ctx, func(t uint64) core.Event {
		return core.PromoteAsked{Ticket: t, Group: group, To: to, AcceptLoss: acceptLoss, Reason: reason}
	})
}

// Rejoin lets the server of this node, which was set aside, be compared with the owner's again.
func (a *Agent) Rejoin(ctx context.Context) error {
	return a.ask(ctx, func(t uint64) core.Event { return core.RejoinAsked{Ticket: t} })
}

// Advise brings an outside manager's advice before the arbiter on this node, and waits for its end. The ticket is set here.
func (a *Agent) Advise(ctx context.Context, advice core.AdviceAsked) error {
	return a.ask(ctx, func(t uint64) core.Event { advice.Ticket = t; return advice })
}

// Remark puts a line into the history, through the arbiter on this node.
func (a *Agent) Remark(ctx context.Context, group core.GroupName, text string) error {
	return a.ask(ctx, func(t uint64) core.Event { return core.RemarkAsked{Ticket: t, Group: group, Text: text} })
}

// Refusal is an answer that says no; its text is why.
type Refusal string

func (r Refusal) Error() string { return string(r) }

func (a *Agent) ask(ctx context.Context, event func(uint64) core.Event) error {
	q := query{event: event, answer: make(chan string, 1)}
	select {
	case a.asks <- q:
	case <-a.done:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case refused := <-q.answer:
		return refusal(refused)
	case <-a.done:
		return a.lastAnswer(q)
	case <-ctx.Done():
		return fmt.Errorf("no answer yet, the request may still be carried out: %w", ctx.Err())
	}
}

// lastAnswer returns the answer that an agent gave in its last step, if it gave one.
func (a *Agent) lastAnswer(q query) error {
	select {
	case refused := <-q.answer:
		return refusal(refused)
	default:
		return ErrStopped
	}
}

func refusal(why string) error {
	if why == "" {
		return nil
	}
	return Refusal(why)
}

// Status returns the machine's picture of the present state.
func (a *Agent) Status(ctx context.Context) (core.Status, error) {
	status := make(chan core.Status, 1)
	q := query{look: func(m *core.Machine, now core.Instant) { status <- m.Status(now) }}
	select {
	case a.asks <- q:
		return <-status, nil
	case <-a.done:
		return core.Status{}, ErrStopped
	case <-ctx.Done():
		return core.Status{}, ctx.Err()
	}
}

// Plan returns what the arbiter on this node would do to move a group, and the state of each condition.
func (a *Agent) Plan(ctx context.Context, group core.GroupName, to core.NodeName) (core.MovePlan, error) {
	plan := make(chan core.MovePlan, 1)
	q := query{look: func(m *core.Machine, now core.Instant) { plan <- m.PlanMove(now, group, to) }}
	select {
	case a.asks <- q:
		return <-plan, nil
	case <-a.done:
		return core.MovePlan{}, ErrStopped
	case <-ctx.Done():
		return core.MovePlan{}, ctx.Err()
	}
}

// Run is the loop. It returns nil when the machine has stopped after a ShutdownAsked, and ctx's error when ctx ends: then
// nothing is given up in order, so a daemon asks for the shutdown first.
func (a *Agent) Run(ctx context.Context) error {
	ctx, a.ended = context.WithCancel(ctx)
	defer a.ended()
	defer close(a.done)
	timer, err := a.cfg.Alarms.New()
	if err != nil {
		return fmt.Errorf("make the timer of the loop: %w", err)
	}
	a.timer = timer
	defer a.timer.Stop()
	a.timer.Reset(0)
	go a.reporter(ctx)
	alive, err := a.cfg.Alarms.New()
	if err != nil {
		return fmt.Errorf("make the timer for signs of life: %w", err)
	}
	defer alive.Stop()
	a.signAlive(alive)
	if a.cfg.Asleep != nil {
		a.asleep = a.cfg.Asleep()
	}
	for !a.stopped {
		select {
		case ev := <-a.mail:
			a.step(ctx, ev)
		case <-a.timer.C():
			a.ring(ctx)
		case q := <-a.asks:
			a.serve(ctx, q)
		case <-alive.C():
		case <-ctx.Done():
			return ctx.Err()
		}
		if time.Since(a.signed) >= a.cfg.AliveEvery/2 {
			a.signAlive(alive)
		}
	}
	return nil
}

// signAlive gives a sign of life. A loop that turns gives one before the alarm for it has to wake the process.
func (a *Agent) signAlive(next alarm.Alarm) {
	a.signed = time.Now()
	next.Reset(a.cfg.AliveEvery)
	if a.cfg.Alive != nil {
		a.cfg.Alive()
	}
}

func (a *Agent) serve(ctx context.Context, q query) {
	if q.look != nil {
		q.look(a.cfg.Machine, a.cfg.Clock())
		return
	}
	a.ticket++
	a.waiting[a.ticket] = q.answer
	a.step(ctx, q.event(a.ticket))
}

// step tells the machine what has happened and carries out what it wants done.
func (a *Agent) step(ctx context.Context, ev core.Event) {
	if a.cfg.Asleep != nil {
		if slept := a.cfg.Asleep(); slept-a.asleep > time.Millisecond {
			ev0 := core.ClockJumped{Reason: fmt.Sprintf("the machine slept for %v", slept-a.asleep)}
			a.asleep = slept
			a.due = 0 // the timer has slept, too
			a.carryOut(ctx, a.cfg.Clock(), ev0)
		}
	}
	a.carryOut(ctx, a.cfg.Clock(), ev)
}

func (a *Agent) carryOut(ctx context.Context, now core.Instant, ev core.Event) {
	a.perform(ctx, now, ev, a.cfg.Machine.Step(now, ev))
}

// perform carries out what the machine wants done after an event, the most urgent first. What gives up begins before all else: no log
// and no observer may hold it up. The daemon has one processor of Go's scheduler, on which what was made ready last runs first when
// the loop waits, before what was made ready earlier: so the loop steps aside where that would be the wrong order, for the unbinding
// before there is a report, and for a claim before there is something to be logged. The report is handed over before the claims, which
// go before it then. What is said of all that comes last, since the log may keep the loop waiting, with the time at which it was so.
func (a *Agent) perform(ctx context.Context, now core.Instant, ev core.Event, actions []core.Action) {
	at := time.Now()
	if a.unbinds(ctx, actions) {
		runtime.Gosched()
	}
	if a.cfg.Observe != nil {
		a.cfg.Observe(now, ev, actions)
	}
	a.report(actions)
	for _, act := range actions {
		a.do(ctx, act)
	}
	a.logAll(ctx, at, actions)
}

// unbinds begins with what is to be unbound, if anything is.
func (a *Agent) unbinds(ctx context.Context, actions []core.Action) (some bool) {
	for _, act := range actions {
		if act, ok := act.(core.Unbind); ok {
			go a.unbind(ctx, act)
			some = true
		}
	}
	return some
}

// logAll logs what the machine noted at a moment.
func (a *Agent) logAll(ctx context.Context, at time.Time, actions []core.Action) {
	aside := false
	for _, act := range actions {
		note, ok := act.(core.Note)
		if !ok {
			continue
		}
		if !aside {
			aside = true
			runtime.Gosched()
		}
		a.log(ctx, at, note)
	}
}

func (a *Agent) do(ctx context.Context, act core.Action) {
	switch act := act.(type) {
	case core.Unbind, core.Arm, core.Note: // see perform
	case core.Bind:
		a.worker(ctx, act.Group).claim(func() core.Event { return a.bind(ctx, act) })
	case core.Extend:
		a.worker(ctx, act.Group).claim(func() core.Event { return a.extend(ctx, act) })
	case core.Prolong:
		a.cfg.Binder.Prolong(act)
	case core.Probe:
		a.worker(ctx, act.Group).claim(func() core.Event { return a.probe(ctx, act) })
	case core.Announce:
		a.worker(ctx, act.Group).announce(func() core.Event { return a.announce(ctx, act) })
	case core.Propose:
		act.Command.At = time.Now().UnixMilli()
		a.cfg.Consensus.Propose(act.Command, func() bool { return act.NotAfter != 0 && a.cfg.Clock() > act.NotAfter })
	case core.TransferLeadership:
		a.cfg.Consensus.TransferLeadership(act.To)
	case core.Send:
		if _, report := act.Msg.(core.Report); !report {
			a.hand(act.To, act.Msg)
		}
	case core.SetTimer:
		a.setTimer(act.At)
	case core.Answer:
		if c := a.waiting[act.Ticket]; c != nil {
			delete(a.waiting, act.Ticket)
			c <- act.Refused
		}
	case core.Stopped:
		a.stopped = true
	default:
		a.serverAct(ctx, act)
	}
}

// ring is called when the timer has rung. Should that have been too early, it is set to the same again.
func (a *Agent) ring(ctx context.Context) {
	a.due = 0
	a.step(ctx, core.Tick{})
}

// setTimer sets the timer of the loop. Most steps leave it as it is, and setting it is a system call. The clock is read again: the loop
// may have stepped aside since the step began.
func (a *Agent) setTimer(at core.Instant) {
	if at == a.due {
		return
	}
	a.due = at
	a.timer.Reset(max(0, at.Sub(a.cfg.Clock())))
}

// tell sends a report to nodes, with the term that this node is in now. It is read once for all of them: that it was read
// after the report was made is what counts.
func (a *Agent) tell(report core.Message, to ...core.NodeName) {
	if r, ok := report.(core.Report); ok {
		r.Term = a.cfg.Consensus.Term()
		report = r // one copy for all
	}
	for _, n := range to {
		a.hand(n, report)
	}
}

// hand gives a message to the network; what the node tells itself goes through its own mailbox, so that every node is
// treated alike: with the term that it is in when the message arrives there.
func (a *Agent) hand(to core.NodeName, m core.Message) {
	if to != a.cfg.Self {
		a.cfg.Consensus.Send(to, m)
		return
	}
	if !a.TryDeliver(core.Received{From: to, Msg: m, Term: a.cfg.Consensus.Term()}) {
		a.cfg.Logger.Warn("mailbox is full, a message to ourselves is dropped", "size", mailboxSize)
	}
}

func (a *Agent) log(ctx context.Context, at time.Time, n core.Note) {
	level := slog.LevelInfo
	if n.Alarm {
		level = slog.LevelWarn
	}
	handler := a.cfg.Logger.Handler()
	if !handler.Enabled(ctx, level) {
		return
	}
	line := slog.NewRecord(at, level, n.Text, 0)
	if n.Group != "" {
		line.Add("group", n.Group, "epoch", n.Epoch)
	}
	if n.Reason != "" {
		line.Add("reason", n.Reason)
	}
	_ = handler.Handle(ctx, line) // there is nowhere to say that it failed
}
