package agent

import (
	"context"
	"sync"
	"time"

	"github.com/remora-ha/remora/core"
)

// Limits of the acts on the server, besides what the acts themselves allow. A server that does not answer is left alone,
// and the machine decides what comes next.
const (
	freezeTimeout = time.Second
	followTimeout = 20 * time.Second
	serverGrace   = 3 * time.Second
)

// noServer is the answer where an agent was given no server to act on.
const noServer = "this daemon has no access to a MySQL server"

// promotion is the PromoteServer that is on its way, if one is. Making the server read-only ends it first, so that it does
// not become writable afterwards.
type promotion struct {
	mu  sync.Mutex
	end context.CancelFunc
}

func (p *promotion) begin(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end = cancel
	return ctx, cancel
}

func (p *promotion) cancel() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.end != nil {
		p.end()
		p.end = nil
	}
}

// serverAct carries out an act on the server beside the loop. Each has a goroutine of its own, so that none waits behind
// another: the machine asks for one at a time of those that must not meet, and making the server read-only meets them all.
func (a *Agent) serverAct(ctx context.Context, act core.Action) {
	switch act := act.(type) {
	case core.FreezeServer:
		go a.freezeServer(ctx, act)
	case core.PromoteServer:
		ctx, cancel := a.promotion.begin(ctx, act.ApplyWithin+serverGrace)
		go a.promoteServer(ctx, cancel, act)
	case core.DemoteServer:
		a.promotion.cancel()
		go a.demoteServer(ctx, act)
	case core.CatchUpServer:
		go a.catchUpServer(ctx, act)
	case core.FollowServer:
		go a.followServer(ctx, act)
	}
}

func (a *Agent) freezeServer(ctx context.Context, act core.FreezeServer) {
	ev := core.ServerFrozen{Err: noServer}
	if a.cfg.Server != nil {
		ctx, cancel := context.WithTimeout(ctx, freezeTimeout)
		defer cancel()
		ev = a.cfg.Server.Freeze(ctx, act)
	}
	ev.Group, ev.Epoch, ev.Round = act.Group, act.Epoch, act.Round
	a.Deliver(ev)
}

func (a *Agent) promoteServer(ctx context.Context, cancel context.CancelFunc, act core.PromoteServer) {
	defer cancel()
	ev := core.ServerPromoted{Err: noServer}
	if a.cfg.Server != nil {
		ev = a.cfg.Server.Promote(ctx, act)
	}
	ev.Group, ev.Epoch = act.Group, act.Epoch
	a.Deliver(ev)
}

func (a *Agent) demoteServer(ctx context.Context, act core.DemoteServer) {
	ev := core.ServerDemoted{Err: noServer}
	if a.cfg.Server != nil {
		ctx, cancel := context.WithTimeout(ctx, act.Drain+serverGrace)
		defer cancel()
		ev = a.cfg.Server.Demote(ctx, act)
	}
	ev.Group, ev.Epoch = act.Group, act.Epoch
	a.Deliver(ev)
}

func (a *Agent) catchUpServer(ctx context.Context, act core.CatchUpServer) {
	ev := core.ServerCaughtUp{Err: noServer}
	if a.cfg.Server != nil {
		ctx, cancel := context.WithTimeout(ctx, act.Within+serverGrace)
		defer cancel()
		ev = a.cfg.Server.CatchUp(ctx, act)
	}
	ev.Group, ev.Epoch, ev.Move = act.Group, act.Epoch, act.Move
	a.Deliver(ev)
}

func (a *Agent) followServer(ctx context.Context, act core.FollowServer) {
	ev := core.ServerFollows{Err: noServer}
	if a.cfg.Server != nil {
		ctx, cancel := context.WithTimeout(ctx, followTimeout)
		defer cancel()
		ev = a.cfg.Server.Follow(ctx, act)
	}
	ev.Group, ev.Epoch = act.Group, act.Epoch
	a.Deliver(ev)
}
