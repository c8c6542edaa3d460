package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/remora-ha/remora/cmd/internal/config"
	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/detector"
	"github.com/remora-ha/remora/netio"
)

// health runs the detector for this node's server, and another one when the file says something else of it.
type health struct {
	self    core.NodeSpec
	deliver func(core.Event)
	hangUp  func(at netip.AddrPort, inode uint64) detector.HangUp // nil for not
	log     *slog.Logger

	mu      sync.Mutex
	current watched
	restart chan *config.Config

	detector atomic.Pointer[detector.Detector]
}

// watched is what a file says of the server that is watched, and of what its account is needed for.
type watched struct {
	server  config.MySQL
	policy  core.Policy
	advised bool
}

// awake tells the detector that the process is awake anyway.
func (h *health) awake() {
	if d := h.detector.Load(); d != nil {
		d.Awake()
	}
}

func newHealth(self core.NodeSpec, deliver func(core.Event), log *slog.Logger) *health {
	return &health{self: self, deliver: deliver, log: log, restart: make(chan *config.Config, 1)}
}

// run watches the server until ctx ends. A witness has none.
func (h *health) run(ctx context.Context, cfg *config.Config) error {
	if h.self.Witness {
		<-ctx.Done()
		return nil
	}
	for ctx.Err() == nil {
		watch, cancel := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- h.watch(watch, cfg) }()
		select {
		case cfg = <-h.restart:
			cancel()
			<-done
		case err := <-done:
			cancel()
			if err != nil && ctx.Err() == nil {
				return fmt.Errorf("watch MySQL: %w", err)
			}
		}
	}
	return nil
}

// use makes the detector follow a new file.
func (h *health) use(cfg *config.Config) {
	if h.self.Witness || h.watched(cfg) == h.lastUsed() {
		return
	}
	h.log.Info("MySQL's address or account changed: watching it anew")
	select {
	case <-h.restart: // only the newest counts
	default:
	}
	h.restart <- cfg
}

func (h *health) lastUsed() watched {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.current
}

func (h *health) watched(cfg *config.Config) watched {
	n, _ := cfg.Node(h.self.Name)
	return watched{server: n.MySQL, policy: policyOf(cfg), advised: cfg.MHA.ActsOnServers()}
}

func (h *health) watch(ctx context.Context, cfg *config.Config) error {
	now := h.watched(cfg)
	h.mu.Lock()
	h.current = now
	h.mu.Unlock()
	server := now.server
	d, err := detector.New(detector.Config{
		Address: server.Dial(), User: server.User, Password: server.Password,
		Policy: now.policy, Advised: now.advised, Timing: cfg.Timing(), Deliver: h.deliver, PrepareHangUp: h.hangUp, Clock: netio.Boottime, Alarms: newAlarm, Logger: h.log,
	})
	if err != nil {
		return err
	}
	h.detector.Store(d)
	if err := d.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// line is what the daemon has prepared to close a listening socket of its server.
type line struct {
	*netio.HangUp
	log *slog.Logger
}

// whyWait says what it means that a socket can not be closed.
const whyWait = "clients that the server lets in while it ends are not reset at once"

// prepareHangUp makes ready to close a listening socket of the server. Where that is not possible some clients wait in vain.
func (d *daemon) prepareHangUp(at netip.AddrPort, inode uint64) detector.HangUp {
	h, err := netio.PrepareHangUp(at, inode)
	if err != nil {
		d.log.Info(whyWait, "err", err)
		return nil
	}
	return line{h, d.log}
}

// Do closes the socket.
func (l line) Do() {
	if err := l.HangUp.Do(); err != nil {
		l.log.Info(whyWait, "err", err)
	}
}

// policyOf is the policy that asks the most of the account. Readers ask for what follow does.
func policyOf(cfg *config.Config) core.Policy {
	policy := core.Policy("")
	for _, g := range cfg.Groups {
		if g.Role == core.Writer && (policy == "" || g.Policy == core.Promote) {
			policy = g.Policy
		}
	}
	if policy == "" && len(cfg.Groups) > 0 {
		return core.Follow
	}
	return policy
}
