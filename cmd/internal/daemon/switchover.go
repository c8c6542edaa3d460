package daemon

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/remora-ha/remora/cmd/internal/control"
	"github.com/remora-ha/remora/consensus"
	"github.com/remora-ha/remora/core"
)

// settledWithin is how long the refusals of a new leader may be about what the one before has begun.
const settledWithin = time.Second

// Switchover moves a group, here or through the leader. If leadership changes meanwhile it sees to it that the group is moved
// all the same.
func (b backend) Switchover(ctx context.Context, req control.SwitchoverRequest) (control.SwitchoverResult, error) {
	if req.Forwarded {
		return b.switchover(ctx, req)
	}
	before := b.d.node.View().Groups[core.GroupName(req.Group)]
	ask := func() (control.SwitchoverResult, error) {
		if leader, elsewhere := b.leader(false); elsewhere {
			return leader.Switchover(ctx, req)
		}
		return b.switchover(ctx, req)
	}
	if before.Spec.Policy == core.Promote {
		return ask() // whoever leads goes on from its stage, and to ask again would be refused
	}
	start := time.Now()
	return insist(ctx, ask, func() (control.SwitchoverResult, bool) {
		now, serves := b.servesSince(ctx, before, core.NodeName(req.To))
		return control.SwitchoverResult{Group: req.Group, From: string(before.Owner), To: req.To, Epoch: uint64(now),
			TookMS: time.Since(start).Milliseconds()}, serves
	})
}

// insist asks again after a change of leaders, unless done says that what was asked for has come true.
func insist(ctx context.Context, ask func() (control.SwitchoverResult, error), done func() (control.SwitchoverResult, bool)) (
	control.SwitchoverResult, error) {
	r, err := ask()
	if !leaderless(err) {
		return r, err
	}
	end := time.Now().Add(arbiterWithin)
	var settled time.Time // from when on a refusal is the new leader's own
	for {
		select {
		case <-time.After(askAgain):
		case <-ctx.Done():
			return r, err
		}
		if now, served := done(); served {
			return now, nil
		}
		r, err = ask()
		switch {
		case err == nil:
			return r, nil
		case leaderless(err):
			settled = time.Time{}
		case settled.IsZero():
			settled = time.Now().Add(settledWithin)
		}
		if now := time.Now(); !now.Before(end) || !settled.IsZero() && !now.Before(settled) {
			return r, err
		}
	}
}

// leaderless reports whether an error says nothing but that nobody was there to decide.
func leaderless(err error) bool {
	var e *control.Error
	return errors.Is(err, control.ErrUnreachable) ||
		errors.As(err, &e) && e.Code == control.CodeRefused &&
			(e.Text == core.NotArbiter || e.Text == core.ArbiterChanged || e.Text == consensus.ErrDiskStandsStill.Error())
}

// servesSince reports whether a node serves a group in an epoch after that of before, and in which.
func (b backend) servesSince(ctx context.Context, before core.GroupState, to core.NodeName) (core.Epoch, bool) {
	now := b.d.node.View().Groups[before.Spec.Name]
	if now.Owner != to || now.Epoch <= before.Epoch {
		return now.Epoch, false
	}
	st, err := b.d.agent.Status(ctx)
	return now.Epoch, err == nil && slices.ContainsFunc(st.Nodes, func(n core.NodeStatus) bool {
		return n.Spec.Name == to && slices.Contains(n.Report.Holds, core.Holding{Group: before.Spec.Name, Epoch: now.Epoch, Phase: core.Serving})
	})
}

func (b backend) switchover(ctx context.Context, req control.SwitchoverRequest) (control.SwitchoverResult, error) {
	start := time.Now()
	before := b.d.node.View().Groups[core.GroupName(req.Group)]
	if before.Spec.Policy == core.Promote && before.Owner != "" && !req.EndTransactions {
		if why := b.longTransactions(ctx, before); why != "" {
			return control.SwitchoverResult{}, control.Refusedf("%s: wait for them, or say --end-transactions", why)
		}
	}
	if before.Spec.Policy != core.Promote && b.d.node.Leader() == b.d.opt.Self.Name {
		// The owner gives up before the ledger hears of it. Under promote an entry for the intent comes first.
		if err := b.d.node.ProveDisk(ctx); errors.Is(err, consensus.ErrDiskStandsStill) {
			return control.SwitchoverResult{}, control.Refusedf("%s", consensus.ErrDiskStandsStill)
		} else if err != nil {
			return control.SwitchoverResult{}, err
		}
	}
	err := b.staged(ctx, before, req.To, func() error {
		return b.d.agent.Move(ctx, core.GroupName(req.Group), core.NodeName(req.To), orDefault(req.Reason, "asked for by an operator"))
	})
	if err != nil {
		return control.SwitchoverResult{}, refusal(err)
	}
	after := b.d.node.View().Groups[core.GroupName(req.Group)]
	return control.SwitchoverResult{Group: req.Group, From: string(before.Owner), To: req.To, Epoch: uint64(after.Epoch),
		TookMS: time.Since(start).Milliseconds()}, nil
}
