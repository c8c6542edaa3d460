package control

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func (f *fake) Promote(_ context.Context, req PromoteRequest) (SwitchoverResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.promotions = append(f.promotions, req)
	return SwitchoverResult{Group: req.Group, To: req.To, Epoch: 9, TookMS: 7}, f.err
}

func (f *fake) Rejoin(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rejoins++
	return f.err
}

func (f *fake) Plan(_ context.Context, req PlanRequest) (Plan, error) {
	return Plan{Group: req.Group, From: "db1", To: req.To, Checks: []PlanCheck{{What: "a"}, {What: "b", Failed: "no"}, {What: "c", Open: "later"}},
		Steps: []string{"one", "two"}}, f.err
}

func (f *fake) Transactions(_ context.Context, req TransactionsRequest) (Transactions, error) {
	if req.OlderMS != 1500 {
		return Transactions{}, errors.New("asked for another age")
	}
	return Transactions{Long: []string{"session 7"}}, f.err
}

func TestOperationsOfPromotion(t *testing.T) {
	f := new(fake)
	c := Local(start(t, f))
	ctx := t.Context()
	r, err := c.Promote(ctx, PromoteRequest{Group: "writer", To: "db2", AcceptLoss: true, Reason: "fire"})
	if err != nil || r != (SwitchoverResult{"writer", "", "db2", 9, 7}) {
		t.Errorf("promote %+v, %v", r, err)
	}
	if diff := cmp.Diff([]PromoteRequest{{Group: "writer", To: "db2", AcceptLoss: true, Reason: "fire"}}, f.promotions); diff != "" {
		t.Errorf("promote asked (-want +got):\n%s", diff)
	}
	if err := c.Rejoin(ctx); err != nil || f.rejoins != 1 {
		t.Errorf("rejoin came %d times, %v", f.rejoins, err)
	}
	p, err := c.Plan(ctx, PlanRequest{Group: "writer", To: "db2"})
	if want, _ := f.Plan(ctx, PlanRequest{Group: "writer", To: "db2"}); err != nil || !cmp.Equal(p, want) {
		t.Errorf("plan %+v, %v", p, err)
	}
	if long, err := c.Transactions(ctx, TransactionsRequest{OlderMS: 1500}); err != nil || len(long.Long) != 1 {
		t.Errorf("transactions %+v, %v", long, err)
	}
	f.err = Refusedf("no")
	var e *Error
	if _, err := c.Promote(ctx, PromoteRequest{}); !errors.As(err, &e) || e.Code != CodeRefused {
		t.Errorf("a refused promotion: %v", err)
	}
}
