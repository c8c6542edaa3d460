package detector

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/alarm"
)

// Detector watches one server. Make it with New.
type Detector struct {
	cfg              Config
	network, address string
	ride             *ride
}

// New checks the configuration and returns a Detector that does nothing until Run.
func New(cfg Config) (*Detector, error) {
	network, address, err := cfg.check()
	if err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Detector{cfg: cfg, network: network, address: address, ride: newRide()}, nil
}

// Awake tells the detector that the process was awake for something else and is done with it. A probe that is due soon then
// goes out at once, if the last one was answered. It may be called from any goroutine and does not wait.
func (d *Detector) Awake() { d.ride.offer(d.cfg.Clock()) }

// Run watches the server until ctx ends, and then returns nil; it fails only at its start. It delivers a HealthChanged whenever the verdict or one of
// the facts has changed. All that it has started has ended when it returns.
func (d *Detector) Run(ctx context.Context) error {
	timer, err := d.cfg.Alarms.New()
	if err != nil {
		return fmt.Errorf("make the timer of the probes: %w", err)
	}
	defer timer.Stop()
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	l := newLoop(d.cfg, d.ride)
	l.timer = timer
	ps := newProcesses(d.cfg.Timing.Probe, d.cfg.Logger, l.tell)
	ps.prepare = d.cfg.PrepareHangUp
	srv := newServer(ctx, d, ps, l.tell)
	defer srv.close()
	l.srv = srv
	wg.Go(func() { ps.run(ctx) })
	l.run(ctx)
	return nil
}

// server is the loop's view of the server.
type server interface {
	// probe asks the server once and connects before if it must. It returns when an answer has taken longer than timeout: of
	// a server that says nothing at all after timeout, or twice that and for how long this process did not run.
	probe(timeout time.Duration) report
	// abort ends the probe that is under way, drops the connection, and lets every further probe fail at once until
	// there have been as many calls of resume, in whatever order. Both may be called from any goroutine.
	abort()
	resume()
}

// hint says that something happened beside the probes.
type hint struct {
	// exit says that the server's process ends, and how. Empty means that the connection was lost.
	exit string
}

// Limits on how often the position alone makes an event, and how often an account that is refused tries again: each
// refusal costs the server a line in its log.
const (
	gtidEvery  = statusEvery / 2 // each is told that is asked for, and at once
	refusedMax = time.Second
)

// loop owns the judge and the timing. It runs in one goroutine and probes in it too: every change of goroutines costs an
// idle daemon more than the probe itself. Who tells it of an exit aborts the probe that is under way.
type loop struct {
	cfg   Config
	exits chan string
	lost  chan struct{}

	srv     server
	judge   *judge
	health  core.Health
	sent    core.Health
	placeAt core.Instant // when a position was told that is another one than before
	timer   alarm.Alarm
	ride    *ride
	due     core.Instant // when the next probe should start
	started core.Instant // when the last probe did
}

func newLoop(cfg Config, ride *ride) *loop {
	return &loop{cfg: cfg, ride: ride, exits: make(chan string, 1), lost: make(chan struct{}, 1), judge: newJudge(cfg.Timing),
		health: core.Health{Lag: unknownLag}}
}

// tell takes a hint from another goroutine and never waits. One of each kind is enough.
func (l *loop) tell(h hint) {
	if h.exit == "" {
		select {
		case l.lost <- struct{}{}:
		default:
		}
		return
	}
	select {
	case l.exits <- h.exit:
		l.srv.abort()
	default:
	}
}

func (l *loop) run(ctx context.Context) {
	defer context.AfterFunc(ctx, l.srv.abort)()
	l.due = l.cfg.Clock()
	l.timer.Reset(0)
	for {
		select {
		case <-ctx.Done():
			return
		case reason := <-l.exits:
			l.exit(reason)
		case <-l.lost:
			l.next(0)
		case <-l.timer.C():
			l.ring(ctx)
		case <-l.ride.bell:
			if l.ride.open(l.cfg.Clock()) {
				l.probe(ctx)
			}
		}
	}
}

// exit takes the end of the server's process, which is proof.
func (l *loop) exit(reason string) {
	l.srv.resume()
	l.ride.forbid()
	now := l.cfg.Clock()
	l.conclude(l.judge.Observe(now, now, dead, false), reason)
	l.next(l.cfg.Timing.Probe)
}

// ring is called when the alarm has rung, which it may have done while a probe went on that did not wait for it.
func (l *loop) ring(ctx context.Context) {
	if early := l.due.Sub(l.cfg.Clock()); early > 0 {
		l.timer.Reset(early)
		return
	}
	l.probe(ctx)
}

// tolerance is how late we may be before that excuses the server.
func tolerance(t core.Timing) time.Duration { return t.Probe / 2 }

// probe asks the server once and draws the conclusion. What a dying server seems to answer does not count.
func (l *loop) probe(ctx context.Context) {
	l.ride.forbid()
	l.started = l.cfg.Clock()
	lateStart := l.started.Sub(l.due)
	r := l.srv.probe(l.cfg.Timing.ProbeTimeout)
	if ctx.Err() != nil {
		return // it was aborted, which says nothing
	}
	select {
	case reason := <-l.exits:
		l.exit(reason)
		return
	default:
	}
	if r.lost {
		select { // the same loss, told by the watch of the connection
		case <-l.lost:
		default:
		}
		l.next(0)
		return
	}
	l.take(r, lateStart)
	l.next(l.interval(r))
	if r.finding == answered && !r.refused {
		l.ride.permit(l.due.Add(-l.cfg.Timing.Probe / earlyBy))
	}
}

// next asks for a probe d after the start of the last one, at once if that is over.
func (l *loop) next(d time.Duration) {
	now := l.cfg.Clock()
	l.due = max(l.started.Add(d), now)
	l.timer.Reset(l.due.Sub(now))
}

// take works on the report of a probe.
func (l *loop) take(r report, lateStart time.Duration) {
	late := max(lateStart, r.late)
	if late <= tolerance(l.cfg.Timing) || r.again != "" {
		late = 0 // nothing is excused twice
	}
	v := l.judge.Observe(l.started, l.cfg.Clock(), r.finding, late > 0)
	if v.state == core.Healthy && r.finding == answered {
		l.learn(r)
		l.health.Reason = r.reason
	}
	if v.state == core.Failed && !v.changed {
		l.health.Alarms = r.alarms
	}
	l.conclude(v, l.reason(v, r, late))
}

func (l *loop) interval(r report) time.Duration {
	if probe := l.cfg.Timing.Probe; r.refused {
		return max(probe, min(5*probe, refusedMax))
	}
	return l.cfg.Timing.Probe
}

// learn takes over what the server has said of itself.
func (l *loop) learn(r report) {
	f := r.facts
	l.health.Alarms = r.alarms
	l.health.Writable, l.health.Replicating, l.health.Lag = f.writable, f.replicating, f.lag
	l.health.MHAWatches, l.health.MHAActs = f.mhaWatches, f.mhaActs
	l.health.SemiSync = f.semiSync
	if r.refused {
		return // what was known of source, position and version may well still hold
	}
	l.health.Source, l.health.GTID, l.health.Version, l.health.Listens = f.source, f.gtid, f.version, f.listens
	l.health.Executed = f.executed
}

// forget drops what a dead server cannot be: writable, replicating, listening. Its last source, position and version are
// kept for people.
func (l *loop) forget() {
	l.health.Writable, l.health.Replicating, l.health.Lag = core.Unknown, core.Unknown, unknownLag
	l.health.MHAWatches, l.health.MHAActs = core.Unknown, core.Unknown
	l.health.Listens, l.health.Alarms = nil, nil
}

func (l *loop) reason(v verdict, r report, late time.Duration) string {
	if r.finding != silent {
		return r.reason
	}
	s := fmt.Sprintf("%s (%d probes in a row, %v since the first)", r.reason, v.silences, v.quiet.Round(time.Millisecond))
	if late > 0 {
		s += fmt.Sprintf("; our own loop was %v late", late.Round(time.Millisecond))
	}
	if r.again != "" {
		s += "; the last had its time twice, since " + r.again
	}
	return s
}

// conclude takes over a verdict and tells it, if anything is new. The reason is that of the change: what a dead server
// does later explains nothing.
func (l *loop) conclude(v verdict, reason string) {
	if !v.changed {
		l.deliver()
		return
	}
	level := slog.LevelInfo
	if v.state == core.Failed {
		level = slog.LevelWarn
		l.forget()
	}
	l.health.State, l.health.Reason = v.state, reason
	l.deliver()
	// Who was told acts first: to write to the log may take as long as the address takes to go.
	runtime.Gosched()
	l.cfg.Logger.Log(context.Background(), level, "server is "+v.state.String(), "address", l.cfg.Address, "reason", reason)
}

func (l *loop) deliver() {
	now := l.cfg.Clock()
	h, s := l.health, l.sent
	// Other news in between must not hold a position back: by its age it is told what a dead server may have written since.
	moved := h.GTID != s.GTID || h.Executed != s.Executed
	if same(h, s) && (!moved || now.Sub(l.placeAt) < gtidEvery) {
		return
	}
	if moved {
		l.placeAt = now
	}
	l.logAlarms(s.Alarms, h.Alarms)
	l.sent = h
	h.Listens, h.Alarms = slices.Clone(h.Listens), slices.Clone(h.Alarms)
	l.cfg.Deliver(core.HealthChanged{Health: h})
}

func (l *loop) logAlarms(before, now []string) {
	for _, a := range now {
		if !slices.Contains(before, a) {
			l.cfg.Logger.Warn("alarm", "address", l.cfg.Address, "alarm", a)
		}
	}
}

// same compares all but the position, which changes with each write.
func same(a, b core.Health) bool {
	return a.State == b.State && a.Reason == b.Reason && a.Writable == b.Writable && a.Source == b.Source &&
		a.Replicating == b.Replicating && a.MHAWatches == b.MHAWatches && a.MHAActs == b.MHAActs && a.Lag == b.Lag && a.SemiSync == b.SemiSync && a.Version == b.Version && (a.Listens == nil) == (b.Listens == nil) &&
		slices.Equal(a.Listens, b.Listens) &&
		slices.Equal(a.Alarms, b.Alarms)
}
