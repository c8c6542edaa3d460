package daemon

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/remora-ha/remora/cmd/internal/control"
	"github.com/remora-ha/remora/core"
)

// transactionsWithin bounds the question for long transactions.
const transactionsWithin = 2 * time.Second

// Promote makes a node the primary by an operator's word, here or through the leader.
func (b backend) Promote(ctx context.Context, req control.PromoteRequest) (control.SwitchoverResult, error) {
	if leader, elsewhere := b.leader(req.Forwarded); elsewhere {
		return leader.Promote(ctx, req)
	}
	start, group := time.Now(), core.GroupName(req.Group)
	before := b.d.node.View().Groups[group]
	err := b.staged(ctx, before, req.To, func() error {
		return b.d.agent.Promote(ctx, group, core.NodeName(req.To), req.AcceptLoss, orDefault(req.Reason, "asked for by an operator"))
	})
	if err != nil {
		return control.SwitchoverResult{}, refusal(err)
	}
	after := b.d.node.View().Groups[group]
	return control.SwitchoverResult{Group: req.Group, From: string(before.Owner), To: req.To, Epoch: uint64(after.Epoch),
		TookMS: time.Since(start).Milliseconds()}, nil
}

// Rejoin is about the server of this node.
func (b backend) Rejoin(ctx context.Context) error { return refusal(b.d.agent.Rejoin(ctx)) }

// Plan says what a switchover would do, here or through the leader.
func (b backend) Plan(ctx context.Context, req control.PlanRequest) (control.Plan, error) {
	if leader, elsewhere := b.leader(req.Forwarded); elsewhere {
		return leader.Plan(ctx, req)
	}
	p, err := b.d.agent.Plan(ctx, core.GroupName(req.Group), core.NodeName(req.To))
	if err != nil {
		return control.Plan{}, err
	}
	out := control.Plan{Group: req.Group, From: string(p.From), To: req.To, Checks: []control.PlanCheck{}, Steps: append([]string{}, p.Steps...)}
	for _, c := range p.Checks {
		out.Checks = append(out.Checks, control.PlanCheck{What: c.What, Failed: c.Why, Open: c.Open})
	}
	if g := b.d.node.View().Groups[core.GroupName(req.Group)]; g.Spec.Policy == core.Promote && len(p.Steps) > 0 {
		out.Checks = append(out.Checks, control.PlanCheck{What: noLongTransactions(g), Failed: b.longTransactions(ctx, g)})
	}
	return out, nil
}

func noLongTransactions(g core.GroupState) string {
	return fmt.Sprintf("%s has no transaction that is older than %v", g.Owner, g.Spec.Promotion.DrainFor())
}

// longTransactions says which transactions on the owner of a group are older than a switchover lets them become, or that
// this can not be found out. It is empty if there are none.
func (b backend) longTransactions(ctx context.Context, g core.GroupState) string {
	ctx, cancel := context.WithTimeout(ctx, transactionsWithin)
	defer cancel()
	req := control.TransactionsRequest{OlderMS: g.Spec.Promotion.DrainFor().Milliseconds()}
	t, err := b.peer(g.Owner).Transactions(ctx, req)
	switch {
	case err != nil:
		return fmt.Sprintf("%s could not be asked: %v", g.Owner, err)
	case len(t.Long) > 0:
		return strings.Join(t.Long, "; ") + ": the switchover would end them"
	}
	return ""
}

// Transactions asks the server of this node.
func (b backend) Transactions(ctx context.Context, req control.TransactionsRequest) (control.Transactions, error) {
	if b.d.actor == nil {
		return control.Transactions{}, control.Refusedf("%s has no MySQL", b.d.opt.Self.Name)
	}
	long, err := b.d.actor.Transactions(ctx, time.Duration(req.OlderMS)*time.Millisecond)
	return control.Transactions{Long: long}, err
}
