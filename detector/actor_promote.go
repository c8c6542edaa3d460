package detector

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/remora-ha/remora/core"
)

// errLate marks a promotion that did not happen, or was undone, because the time for it was over.
var errLate = errors.New("the time for it was over")

// Promote lets the server apply what it has received, detaches it and makes it writable unless NotAfter has passed, or with
// Keep makes it writable only. A Demote that comes meanwhile ends it.
func (a *Actor) Promote(ctx context.Context, p core.PromoteServer) core.ServerPromoted {
	out := core.ServerPromoted{Group: p.Group, Epoch: p.Epoch}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	me := &promotion{cancel: cancel, done: make(chan struct{})}
	defer close(me.done)
	err := a.with(ctx, a.work, func(l *line) error {
		if !a.enter(me, l.thread) {
			return errors.New("the server is being made read-only")
		}
		defer a.leave(me)
		var err error
		out.Executed, err = a.promote(ctx, l, p)
		return err
	})
	out.Late = errors.Is(err, errLate)
	out.Err = message(err)
	return out
}

func (a *Actor) enter(me *promotion, thread string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	me.thread = thread
	if a.demotes > 0 {
		return false
	}
	a.promotion = me
	return true
}

func (a *Actor) leave(me *promotion) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.promotion == me {
		a.promotion = nil
	}
}

func (a *Actor) promote(ctx context.Context, l *line, p core.PromoteServer) (executed string, err error) {
	if err := a.prepare(ctx, l, p); err != nil {
		return "", err
	}
	st, err := l.state(ctx)
	if err != nil {
		return "", err
	}
	return st.executed.String(), a.claim(ctx, l, p.NotAfter)
}

// prepare does what comes before a server becomes writable.
func (a *Actor) prepare(ctx context.Context, l *line, p core.PromoteServer) error {
	if p.Keep {
		return l.mayOpen(ctx, p.Undo)
	}
	channels, err := l.channels(ctx)
	if err != nil || len(channels) == 0 {
		return err
	}
	return a.detach(ctx, l, channels, p)
}

// detach applies what was received and ends replication.
func (a *Actor) detach(ctx context.Context, l *line, channels []channel, p core.PromoteServer) error {
	if err := l.stopReceivers(ctx, channels); err != nil {
		return err
	}
	channels, err := l.channels(ctx)
	if err != nil {
		return err
	}
	received, err := l.received(channels)
	if err != nil {
		return err
	}
	if err := l.waitApplied(ctx, received, p.ApplyWithin); err != nil {
		return err
	}
	if now := a.clock(); !now.Before(p.NotAfter) {
		return fmt.Errorf("make the server writable: everything is applied, but %w %v ago", errLate, now.Sub(p.NotAfter))
	}
	for _, c := range channels {
		if err := a.stopReplication(ctx, l, c.name); err != nil {
			return err
		}
		if err := l.exec(ctx, l.dialect.forget(c.name)); err != nil {
			return err
		}
	}
	left, err := l.channels(ctx)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("the server still replicates from %s although that was reset: somebody else has set it", left[0].source)
	}
	return err
}

// claim makes the server writable. The limit is in the statement, by the server's own clock: between here and its
// execution either of us may stand still. Of the moment at which the server's clock was read we know only that it lies
// between two readings of ours, so the later one counts, which makes the limit too early and never too late. A clock of
// the server that is set back meanwhile is found by the look at our own clock afterwards.
func (a *Actor) claim(ctx context.Context, l *line, notAfter core.Instant) error {
	r, err := l.one(ctx, askClock)
	if err != nil {
		return err
	}
	now := a.clock()
	clock, err := time.Parse(clockFormat, r["clock"])
	if err != nil {
		return fmt.Errorf("read the server's clock: %w", err)
	}
	left := notAfter.Sub(now)
	if left <= 0 {
		return fmt.Errorf("make the server writable: %w %v ago", errLate, -left)
	}
	claimErr := l.exec(ctx, l.dialect.setWritable(clock.Add(left)))
	if claimErr == nil {
		st, err := l.state(ctx)
		if err == nil && st.writable == core.Yes && a.clock().Before(notAfter) {
			return nil
		}
		claimErr = err
		if err == nil {
			claimErr = fmt.Errorf("make the server writable: %w when the server came to it", errLate)
		}
	}
	if !a.clock().Before(notAfter) && !errors.Is(claimErr, errLate) {
		claimErr = fmt.Errorf("make the server writable: %w: %w", errLate, claimErr)
	}
	return errors.Join(claimErr, a.undo(ctx))
}

// undo takes a claim back whose outcome is late or unknown. The other connection does it, because this one may be the
// reason. ctx may have ended because a Demote did that; then that one makes the server read-only.
func (a *Actor) undo(ctx context.Context) error {
	if ctx.Err() != nil {
		return nil
	}
	err := a.with(ctx, a.giveUp, func(l *line) error { return a.makeReadOnly(ctx, l) })
	if err != nil {
		return fmt.Errorf("make the server read-only again: %w", err)
	}
	return nil
}
