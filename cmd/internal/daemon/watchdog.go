package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/remora-ha/remora/cmd/internal/config"
	"github.com/remora-ha/remora/cmd/internal/watchdog"
	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/agent"
)

// watchdogRetry is how often a watchdog that does not work is tried again.
const watchdogRetry = 10 * time.Second

// keeper keeps the watchdog device as the holdings come and go.
type keeper struct {
	dog      *watchdog.Dog
	required bool
	log      *slog.Logger
	deliver  func(core.Event) bool // does not wait
	failing  atomic.Bool
}

// newKeeper returns nil where no device is to be kept.
func newKeeper(p config.Process, log *slog.Logger, deliver func(core.Event) bool) *keeper {
	if p.Watchdog == config.WatchdogOff {
		return nil
	}
	return &keeper{dog: watchdog.New(watchdog.Config{Path: p.WatchdogDevice, Timeout: p.WatchdogTimeout}),
		required: p.Watchdog == config.WatchdogRequired, log: log, deliver: deliver}
}

// check looks, once nothing of an earlier process is bound any more, whether the device works, and disarms what that process
// may have left running. It tells the machine.
func (k *keeper) check() { k.outcome(k.dog.Check()) }

// outcome notes whether the device works. Where it is required, the node owns nothing as long as it does not.
func (k *keeper) outcome(err error) {
	was := k.failing.Swap(err != nil)
	if err != nil && !was {
		level := slog.LevelWarn
		if k.required {
			level = slog.LevelError
		}
		k.log.Log(context.Background(), level, "the watchdog does not work", "required", k.required, "reason", err)
	} else if err == nil && was {
		k.log.Info("the watchdog works again")
	}
	if !k.required {
		return
	}
	ev := core.HostChanged{}
	if err != nil {
		ev.Unfit = fmt.Sprintf("the watchdog that is required does not work: %v", err)
	}
	if !k.deliver(ev) {
		k.failing.Store(true) // tried again soon, and told again
	}
}

// follow is called by the agent's loop after each step: signs of life while leases stand, the end when all is gone, and
// nothing in between, where only a reset would help if unbinding does not.
func (k *keeper) follow(g core.Grip) {
	var err error
	switch g {
	case core.GripFirm:
		err = k.dog.Alive()
	case core.GripNone:
		err = k.dog.Disarm()
	}
	if err != nil && !k.failing.Load() {
		k.outcome(err)
	}
}

// keep tries a device that does not work again and again until ctx ends.
func (k *keeper) keep(ctx context.Context) {
	t := time.NewTicker(watchdogRetry)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if k.failing.Load() {
				k.check()
			}
		case <-ctx.Done():
			return
		}
	}
}

// watchedBinder arms the watchdog before each bind.
type watchedBinder struct {
	agent.Binder
	keeper *keeper
}

func (w watchedBinder) Bind(ctx context.Context, a core.Bind) error {
	if err := w.keeper.dog.Arm(); err != nil {
		w.keeper.outcome(err)
		if w.keeper.required {
			return fmt.Errorf("nothing is bound without a watchdog, which is required: %w", err)
		}
	}
	return w.Binder.Bind(ctx, a)
}
