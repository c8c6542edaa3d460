package daemon

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/remora-ha/remora/cmd/internal/config"
	"github.com/remora-ha/remora/cmd/internal/control"
	"github.com/remora-ha/remora/cmd/internal/metrics"
	"github.com/remora-ha/remora/cmd/internal/realtime"
	"github.com/remora-ha/remora/cmd/internal/sdnotify"
	"github.com/remora-ha/remora/cmd/internal/trace"
	"github.com/remora-ha/remora/consensus"
	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/agent"
	"github.com/remora-ha/remora/detector"
	"github.com/remora-ha/remora/netio"
)

// Options are what a daemon is started with.
type Options struct {
	Config *config.Config
	// Path is the configuration file, read again on SIGHUP.
	Path string
	// Self is the node that this process is.
	Self core.NodeSpec
	// DryRun takes part in everything and carries nothing out in the kernel.
	DryRun  bool
	Logger  *slog.Logger
	Version string
}

// closeTimeout bounds the end of what holds nothing any more.
const closeTimeout = 5 * time.Second

// daemon is one running node.
type daemon struct {
	opt        Options
	log        *slog.Logger
	cfg        *config.Config                // the file of the start, for what only a restart changes
	reloaded   atomic.Pointer[config.Config] // the file as a reload has taken it over, nil before the first
	agent      *agent.Agent
	node       *consensus.Node
	binder     *netio.Binder
	clients    *clientele
	watcher    *netio.Watcher
	health     *health
	actor      *detector.Actor // nil on a witness
	rewarm     chan struct{}   // the file may want its connections kept open now, or no more
	ending     *ending
	notify     *sdnotify.Notifier
	ready      core.Instant
	fence      *netio.Fence  // nil if the kernel has none, and on a node that never binds
	unfenced   bool          // it binds, and the kernel has no fence
	machine    *core.Machine // used by the agent's loop
	keeper     *keeper       // of the watchdog, nil if there is none
	scheduling string
	locked     realtime.Lock
	guard      chan toGuard
	recorder   *trace.Recorder
	metrics    *metrics.Metrics // nil if none are offered
	watched    toGuard          // what the ledger had last; used by the agent's loop
}

// Run carries a node from its start to its orderly end, which begins with the end of ctx: unbind, verify, release, hand
// leadership on; then Run returns nil. SIGHUP makes it read its file again.
func Run(ctx context.Context, opt Options) error {
	d := &daemon{opt: opt, log: opt.Logger, cfg: opt.Config, guard: make(chan toGuard, 1), rewarm: make(chan struct{}, 1), recorder: trace.NewRecorder()}
	d.makeMetrics()
	beThrifty(d.log)
	d.notify = sdnotify.FromEnvironment()

	// The socket comes first: it refuses a second daemon before anything is touched.
	listener, err := control.Listen(d.cfg.Socket)
	if err != nil {
		return err
	}
	defer listener.Close()
	d.settle()
	if err := d.open(); err != nil {
		return err
	}
	d.log.Info("starting", "node", opt.Self.Name, "version", opt.Version, "takes_part_in", d.ready.Sub(netio.Boottime()).Round(time.Millisecond),
		"ttl", d.cfg.Timing().TTL, "margin", d.margin(d.cfg.Timing().TTL), "dry_run", opt.DryRun)
	err = d.run(ctx, listener)
	if err == nil {
		d.log.Info("ended")
	}
	return err
}

// config is the file as it was last taken over. What is asked twice in one piece of work may have changed in between.
func (d *daemon) config() *config.Config {
	if c := d.reloaded.Load(); c != nil {
		return c
	}
	return d.cfg
}

// open makes the parts. What an earlier process left in the kernel goes before anything else.
func (d *daemon) open() error {
	if err := d.makeFence(); err != nil {
		return err
	}
	kernel := d.tryDestroy()
	binder, err := netio.NewBinder(d.binderConfig(kernel))
	if err != nil {
		return err
	}
	d.binder = binder
	d.clients = &clientele{binder: binder, stir: netio.ReadStir, tell: d.tellAll, log: d.log}
	if !d.opt.DryRun {
		if err := d.clean(); err != nil {
			return errors.Join(err, binder.Close())
		}
	}
	if d.actor, err = newActor(d.cfg, d.opt.Self.Name, d.log); err != nil {
		return errors.Join(err, binder.Close())
	}
	d.ending = newEnding(kernel, d.actor, d.log)
	if err := d.openConsensus(); err != nil {
		return errors.Join(err, binder.Close())
	}
	d.watcher = netio.NewWatcher(netio.WatcherConfig{Deliver: d.agent.Deliver, Label: d.label(), Logger: d.log,
		Interface: d.localInterface})
	d.watcher.SetGroups(d.cfg.Core().Groups)
	d.health = newHealth(d.opt.Self, d.agent.Deliver, d.log)
	if !d.opt.DryRun {
		d.health.hangUp = d.prepareHangUp
	}
	return nil
}

// binderConfig is for a node whose kernel says what CheckDestroy has returned.
func (d *daemon) binderConfig(kernel error) netio.Config {
	return netio.Config{Interface: d.localInterface, Label: d.label(), Fence: d.fence, Bound: d.bound, Logger: d.log,
		NoDestroy: errors.Is(kernel, netio.ErrNoDestroy), Left: func(l netio.Leftover) { d.ending.left(l.Group, l) }}
}

// openConsensus makes the machine, the agent and the consensus, which need each other.
func (d *daemon) openConsensus() error {
	incarnation, seed := random(), random()
	now := netio.Boottime()
	d.ready = now.Add(d.startWait())
	d.machine = core.New(core.Options{
		Self: d.opt.Self.Name, Incarnation: core.Incarnation(incarnation), Timing: d.cfg.Timing(), Release: d.opt.Version,
		DryRun: d.opt.DryRun, Fence: d.fence != nil, Unfenced: d.unfenced, Sets: gtidSets{}, Seed: seed, Start: now, Ready: d.ready,
	})
	if !d.opt.DryRun && !d.opt.Self.Witness {
		d.keeper = newKeeper(d.cfg.Process, d.log, func(ev core.Event) bool { return d.agent.TryDeliver(ev) })
	}
	late := &lateConsensus{} // the agent and the consensus need each other; neither acts before both are there
	d.agent = agent.New(agent.Config{
		Self: d.opt.Self.Name, Machine: d.machine, Clock: netio.Boottime, Alarms: newAlarm, Asleep: asleep(), Consensus: late,
		Binder: d.binderPort(), Announcer: d.announcerPort(), Server: d.serverPort(), Observe: d.observe, Logger: d.log,
		Reported: func() { d.health.awake() }, Alive: d.alive, AliveEvery: d.notify.Watchdog() / 3,
	})
	node, err := consensus.Open(consensus.Config{
		Self: d.opt.Self.Name, Cluster: d.cfg.Cluster, Peers: d.cfg.Core().Nodes, StateDir: d.cfg.StateDir,
		Timing: d.cfg.Timing(), TLS: consensus.TLSFiles{CA: d.cfg.TLS.CA, Cert: d.cfg.TLS.Cert, Key: d.cfg.TLS.Key},
		Ledger: core.NewLedger(), Incarnation: core.Incarnation(incarnation),
		Deliver: d.agent.Deliver, DeliverDatagram: d.agent.TryDeliver, DeliverClients: d.clients.heard, Alarms: newAlarm, Logger: d.log,
	})
	if err != nil {
		return err
	}
	d.node = node
	late.Node = node
	return nil
}

// margin is how much longer than a lease of length ttl the others wait for this node.
func (d *daemon) margin(ttl time.Duration) time.Duration {
	if d.unfenced {
		return core.UnfencedMargin(ttl)
	}
	return core.Margin(ttl)
}

// startWait is how long this node takes no part: the longest lease that an earlier process may have had a hand in, and
// the margin.
func (d *daemon) startWait() time.Duration {
	longest, err := consensus.LongestLease(d.cfg.StateDir)
	if err != nil {
		d.log.Warn("it is not known how long leases were: this node waits for the longest that there can be", "ttl", longest, "error", err)
	}
	ttl := max(longest, d.cfg.Timing().TTL)
	if ttl >= core.UnfencedTTL {
		return ttl + core.UnfencedMargin(ttl) // some node may have no fence
	}
	return ttl + core.Margin(ttl)
}

// run lets the parts work until the machine has stopped, and ends them in order.
func (d *daemon) run(ctx context.Context, listener net.Listener) error {
	loop := make(chan error, 1)
	go func() { loop <- d.agent.Run(context.Background()) }()
	d.agent.Deliver(core.ConfigOffered{Config: d.cfg.Core(), Interfaces: d.interfaces()})
	if d.keeper != nil {
		d.keeper.check()
	}

	parts := newParts()
	defer parts.end()
	parts.run(d.watcher.Run)
	parts.run(func(ctx context.Context) error { return d.health.run(ctx, d.opt.Config) })
	parts.run(func(ctx context.Context) error { d.keepFence(ctx); return nil })
	if d.keeper != nil {
		parts.run(func(ctx context.Context) error { d.keeper.keep(ctx); return nil })
	}
	parts.run(func(ctx context.Context) error { return d.serveControl(ctx, listener) })
	parts.run(d.keepWarm)
	parts.run(func(ctx context.Context) error { d.ending.keep(ctx); return nil })
	parts.run(d.takePart)
	parts.run(func(ctx context.Context) error { d.reloads(ctx); return nil })
	if d.metrics != nil {
		at := d.cfg.MetricsFor(d.opt.Self.Name)
		parts.run(func(ctx context.Context) error { d.metrics.Serve(ctx, at, d.log); return nil })
	}

	cause := d.wait(ctx, loop, parts.broken)
	d.tell(d.notify.Stopping())
	parts.end()
	end, done := context.WithTimeout(context.Background(), closeTimeout)
	defer done()
	d.clients.close()
	d.ending.close()
	return errors.Join(cause, d.node.Shutdown(end), parts.wait(cause), d.removeFence(cause), d.binder.Close())
}

// wait returns when the loop has ended: after a signal, or because the consensus can not go on or another part is broken. In
// any case everything is given up in order first.
func (d *daemon) wait(ctx context.Context, loop, broken <-chan error) error {
	d.tell(d.notify.Ready())
	var cause error
	select {
	case <-ctx.Done():
		d.log.Info("stopping: giving everything up in order")
	case cause = <-d.node.Failed():
		d.log.Error("stopping: this node can not go on", "reason", cause)
	case cause = <-broken:
		d.log.Error("stopping: a part of the daemon has failed, and without it nothing may be served: giving everything up in order", "reason", cause)
	case err := <-loop:
		return fmt.Errorf("the agent ended by itself: %w", err)
	}
	d.agent.Deliver(core.ShutdownAsked{})
	return errors.Join(cause, <-loop)
}

// takePart starts Raft once nothing that an earlier process promised can still be out.
func (d *daemon) takePart(ctx context.Context) error {
	select {
	case <-time.After(d.ready.Sub(netio.Boottime())):
	case <-ctx.Done():
		return nil
	}
	if err := d.node.Start(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("start Raft: %w", err)
	}
	return nil
}

// observe sees every step of the machine. It notes what belongs to takeovers, logs what was committed and tells the watcher
// which groups the ledger has.
func (d *daemon) observe(at core.Instant, ev core.Event, actions []core.Action) {
	if d.metrics != nil {
		d.metrics.Observe(at, netio.Boottime(), ev, actions)
	}
	d.recorder.Observe(at, ev, actions)
	if d.keeper != nil {
		d.keeper.follow(d.machine.Grip())
	}
	var view core.View
	switch ev := ev.(type) {
	case core.Committed:
		d.logCommitted(ev)
		if !changesGroups(ev.Command) {
			return
		}
		view = ev.View
	case core.Restored:
		view = ev.View
	default:
		return
	}
	now := toGuard{nodes: view.Config.Nodes}
	for _, name := range slices.Sorted(maps.Keys(view.Groups)) {
		now.groups = append(now.groups, view.Groups[name].Spec)
	}
	if !reflect.DeepEqual(now, d.watched) {
		d.watched = now
		d.watcher.SetGroups(now.groups)
		d.guardLater(now)
	}
}

// logCommitted writes a line for each change of ownership that the ledger has accepted.
func (d *daemon) logCommitted(c core.Committed) {
	for i, op := range c.Command.Ops {
		switch {
		case c.Outcomes[i].Refused != "":
			d.log.Debug("refused by the ledger", "index", c.Index, "reason", c.Outcomes[i].Refused)
		case op.Grant != nil:
			d.log.Info("grant committed", "group", op.Grant.Group, "epoch", op.Grant.Prev+1, "owner", op.Grant.To,
				"handover", op.Grant.Handover, "reason", op.Grant.Reason)
		case op.Release != nil:
			d.log.Info("release committed", "group", op.Release.Group, "epoch", op.Release.Epoch, "by", op.Release.Node, "reason", op.Release.Reason)
		case op.Move != nil:
			d.log.Info("move committed", "group", op.Move.Group, "epoch", op.Move.Epoch, "to", op.Move.To, "reason", op.Move.Reason)
		case op.Drain != nil:
			d.log.Info("drain committed", "group", op.Drain.Group, "epoch", op.Drain.Epoch)
		case op.Abort != nil:
			d.log.Warn("abort committed", "group", op.Abort.Group, "epoch", op.Abort.Epoch, "reason", op.Abort.Reason)
		case op.Pause != nil:
			d.log.Info("pause committed", "group", op.Pause.Group, "on", op.Pause.On, "reason", op.Pause.Reason)
		case op.Advise != nil:
			d.log.Info("advice committed", "group", op.Advise.Group, "epoch", op.Advise.Epoch, "stop", op.Advise.From, "by", op.Advise.By)
		case op.Withdraw != nil:
			d.log.Warn("advice withdrawn", "group", op.Withdraw.Group, "reason", op.Withdraw.Reason)
		case op.Configure != nil:
			d.log.Info("configuration committed", "version", op.Configure.Version, "ttl", op.Configure.TTL.Duration())
		}
	}
}

// changesGroups reports whether a command may change what addresses the groups have.
func changesGroups(c core.Command) bool {
	for _, op := range c.Ops {
		if op.Configure != nil || op.Release != nil || op.Grant != nil {
			return true
		}
	}
	return false
}

// alive is the sign of life for systemd's watchdog. It is given by the agent's loop and nobody else.
func (d *daemon) alive() { d.tell(d.notify.Alive()) }

func (d *daemon) tell(err error) {
	if err != nil {
		d.log.Warn("systemd was not told", "error", err)
	}
}

// asleep returns a function that tells how long the machine has been suspended since its boot.
func asleep() func() time.Duration {
	var last time.Duration
	return func() time.Duration {
		if d, ok := netio.Asleep(); ok {
			last = d
		}
		return last
	}
}

// random returns a number that nobody can guess and that is not zero.
func random() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return binary.NativeEndian.Uint64(b[:]) | 1
}
