package netio

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/remora-ha/remora/core"
)

const (
	// sweepEvery is how often everything is read again without a reason, in case the kernel failed to give one.
	sweepEvery = 5 * time.Second
	// carrierEvery is how often the interfaces in use are looked at. The kernel holds back the news of a lost carrier for
	// up to a second if there was other such news shortly before (net/core/link_watch.c); the flag itself is true at once.
	carrierEvery = 250 * time.Millisecond
	// readShare is what part of the time may go into reading addresses because of news: one of as many. The first news is followed at
	// once, and a thousand addresses that come or go within 50 ms are read some times and not with each.
	readShare = 10
	// newsWait is the longest time that news wait for that.
	newsWait = 20 * time.Millisecond
	// retryEvery is how soon something that failed is tried again.
	retryEvery = 50 * time.Millisecond
)

// WatcherConfig says how a Watcher works.
type WatcherConfig struct {
	// Deliver takes the events, one after the other. While it blocks, nothing is watched; nothing is lost by that either.
	Deliver func(core.Event)
	// Interface names the interface of a group on this node. Nil means the one of the group's specification.
	Interface func(core.GroupSpec) string
	// Label is that of the Binder's Config.
	Label string
	// Clock times the limits on events about foreign claims, by default [Boottime].
	Clock func() core.Instant
	// Logger gets what can not be watched at the moment, and why. Nil means silence.
	Logger *slog.Logger
}

// Watcher reports what happens to the addresses and interfaces of groups: core.LinkChanged, core.AddressSeen and
// core.ForeignClaim. The first two tell the state at the start, after SetGroups and whenever it has changed; what could
// not be read is not reported. Foreign claims are reported as they are heard, but not more often than the limits in
// foreign_linux.go allow.
type Watcher struct {
	cfg     WatcherConfig
	mu      sync.Mutex
	groups  []core.GroupSpec
	changed chan struct{}
	// Tests make the hints' socket small and the sweeps rare.
	rcvbuf int
	sweep  time.Duration
}

// NewWatcher returns a Watcher without groups. Deliver must be set.
func NewWatcher(cfg WatcherConfig) *Watcher {
	cfg.Interface, cfg.Logger = orSpec(cfg.Interface), orDiscard(cfg.Logger)
	if cfg.Clock == nil {
		cfg.Clock = Boottime
	}
	return &Watcher{cfg: cfg, changed: make(chan struct{}, 1), rcvbuf: hintBuffer, sweep: sweepEvery}
}

// SetGroups replaces the groups that are watched. It may be called at any time, also before Run; it does not wait. The
// state of all groups is reported anew.
func (w *Watcher) SetGroups(groups []core.GroupSpec) {
	w.mu.Lock()
	w.groups = slices.Clone(groups)
	w.mu.Unlock()
	select {
	case w.changed <- struct{}{}:
	default: // the watch will take the newest anyway
	}
}

// Run watches until ctx is done and then returns nil. It returns an error only if it can not begin.
func (w *Watcher) Run(ctx context.Context) error {
	// Hints are subscribed to before the state is read for the first time, so that no change falls between.
	hints, err := subscribe(w.rcvbuf)
	if err != nil {
		return fmt.Errorf("netio: watch the kernel's addresses and links: %w", err)
	}
	s, err := newSession()
	if err != nil {
		return errors.Join(fmt.Errorf("netio: watch: %w", err), hints.close())
	}
	carrier, err := NewAlarm()
	if err != nil {
		return errors.Join(fmt.Errorf("netio: watch: %w", err), hints.close(), s.close())
	}
	defer carrier.Stop()
	again, err := NewAlarm()
	if err != nil {
		return errors.Join(fmt.Errorf("netio: watch: %w", err), hints.close(), s.close())
	}
	defer again.Stop()
	ctx, cancel := context.WithCancel(ctx)
	v := &view{w: w, s: s, again: again, heard: make(chan report)}
	var wg sync.WaitGroup
	news := make(chan []hint)
	wg.Go(func() { hints.follow(ctx, news, w) })
	v.loop(ctx, news, carrier)
	cancel()
	v.closeListeners()
	wg.Wait()
	v.listening.Wait()
	_ = v.s.close()
	return nil
}

// loop is the one goroutine that reads state, compares and delivers.
func (v *view) loop(ctx context.Context, news <-chan []hint, carrier *Alarm) {
	sweep := time.NewTicker(v.w.sweep)
	defer sweep.Stop()
	carrier.Reset(carrierEvery)
	v.retry = time.NewTimer(v.w.sweep)
	defer v.retry.Stop()
	select {
	case <-v.w.changed: // set before Run; taken now
	default:
	}
	v.setGroups()
	for {
		select {
		case <-ctx.Done():
			return
		case <-v.w.changed:
			v.setGroups()
		case hs := <-news:
			for _, h := range hs {
				v.follow(h)
			}
		case r := <-v.heard:
			v.hear(r)
		case <-carrier.C():
			v.checkCarriers()
			carrier.Reset(carrierEvery)
		case <-sweep.C:
			v.lastFailure = ""
			v.readAll()
		case <-v.retry.C:
			v.readAll()
		case <-v.again.C():
			v.readAgain()
		}
	}
}
