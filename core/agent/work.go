package agent

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/remora-ha/remora/core"
)

// queueSize bounds the claims of one group that wait. The machine has at most a handful in flight of those whose end it waits
// for, so a full queue is a programming error. Nobody waits for the end of an announcement: while a claim hangs in the kernel
// and the lease is renewed they go on coming, and those for which there is no room are dropped.
const (
	queueSize        = 64
	announcementsMax = queueSize / 2
)

// worker carries out the claims of one group, one after the other.
type worker struct{ queue chan func() core.Event }

// worker returns the worker of a group. The first call for a group starts it; it ends with ctx.
func (a *Agent) worker(ctx context.Context, name core.GroupName) *worker {
	w := a.workers[name]
	if w != nil {
		return w
	}
	w = &worker{queue: make(chan func() core.Event, queueSize)}
	a.workers[name] = w
	go func() {
		for {
			select {
			case f := <-w.queue:
				if ctx.Err() != nil {
					return // the agent has ended: nothing more is claimed
				}
				if ev := f(); ev != nil {
					a.Deliver(ev)
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return w
}

func (w *worker) claim(f func() core.Event) {
	select {
	case w.queue <- f:
	default:
		panic(fmt.Sprintf("agent: more than %d claims of one group wait", queueSize))
	}
}

// announce is like claim, for what may be left out.
func (w *worker) announce(f func() core.Event) {
	if len(w.queue) < announcementsMax {
		w.claim(f)
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (a *Agent) bind(ctx context.Context, b core.Bind) core.Event {
	err := a.cfg.Binder.Bind(ctx, b)
	return core.BindDone{Group: b.Group, Epoch: b.Epoch, Err: text(err), Late: a.cfg.Binder.Late(err)}
}

func (a *Agent) extend(ctx context.Context, e core.Extend) core.Event {
	err := a.cfg.Binder.Extend(ctx, e)
	return core.ExtendDone{Group: e.Group, Epoch: e.Epoch, Err: text(err), Absent: a.cfg.Binder.Absent(err)}
}

func (a *Agent) probe(ctx context.Context, p core.Probe) core.Event {
	mac, err := a.cfg.Binder.Probe(ctx, p)
	return core.ProbeDone{Group: p.Group, Epoch: p.Epoch, Conflict: mac, Err: text(err)}
}

func (a *Agent) announce(ctx context.Context, n core.Announce) core.Event {
	if err := a.cfg.Announcer.Announce(ctx, n); err != nil {
		a.cfg.Logger.Warn("announcing failed", "group", n.Group, "epoch", n.Epoch, "reason", err)
		return nil
	}
	level := slog.LevelDebug
	if n.Round == 1 {
		level = slog.LevelInfo
	}
	a.cfg.Logger.Log(ctx, level, "announced", "group", n.Group, "epoch", n.Epoch, "round", n.Round)
	return nil
}

// unbind runs on a goroutine of its own: giving up waits for nothing but the kernel, and for that as long as it takes. While a call
// hangs there another one would hang, too, and the lease is not renewed any more: it ends by the kernel's fence.
func (a *Agent) unbind(ctx context.Context, u core.Unbind) {
	err := a.cfg.Binder.Unbind(ctx, u)
	a.Deliver(core.UnbindDone{Group: u.Group, Epoch: u.Epoch, Gone: err == nil, Err: text(err)})
}

// reportsMax bounds the reports that wait for the kernel's fence. Only the newest of them is sent.
const reportsMax = 64

// armed is a report with what the fence must be told before it is sent.
type armed struct {
	arm    core.Arm
	report core.Message
	to     []core.NodeName
}

// report hands the report of a step, if there is one, to the reporter; without a fence it is sent at once. If the kernel is so slow
// that there is no room, the report is lost, as it might have been on the network.
func (a *Agent) report(actions []core.Action) {
	var (
		r      armed
		fenced bool
	)
	for i, act := range actions {
		switch act := act.(type) {
		case core.Arm:
			r, fenced = armed{arm: act, to: make([]core.NodeName, 0, len(actions)-i-1)}, true
		case core.Send:
			if _, report := act.Msg.(core.Report); report {
				r.report, r.to = act.Msg, append(r.to, act.To)
			}
		}
	}
	switch {
	case len(r.to) == 0:
	case !fenced:
		a.tell(r.report, r.to...)
	default:
		select {
		case a.reports <- r:
		default:
			a.cfg.Logger.Warn("a report is not sent: the kernel's fence takes too long", "report", r.arm.Seq)
		}
	}
}

// newest returns the last of the reports that wait, of which r was the first. It says all that those before it say, and
// the fence takes a time that grows with the addresses: many grants at once make many reports.
func (a *Agent) newest(r armed) armed {
	for {
		select {
		case r = <-a.reports:
		default:
			return r
		}
	}
}

// reporter tells the fence of each report and then sends it, beside the loop, which waits for no kernel.
func (a *Agent) reporter(ctx context.Context) {
	for {
		select {
		case r := <-a.reports:
			r = a.newest(r)
			if err := a.cfg.Binder.Arm(ctx, r.arm); err != nil {
				a.cfg.Logger.Warn("a report is not sent: the kernel's fence was not told of it", "report", r.arm.Seq, "reason", err)
				continue
			}
			a.tell(r.report, r.to...)
			if a.cfg.Reported != nil {
				a.cfg.Reported()
			}
		case <-ctx.Done():
			return
		}
	}
}
