package cli

import (
	"context"
	"strings"
	"testing"

	"github.com/remora-ha/remora/cmd/internal/control"
)

func (f *fake) Promote(ctx context.Context, req control.PromoteRequest) (control.SwitchoverResult, error) {
	f.asked = append(f.asked, req)
	f.tell(ctx)
	return control.SwitchoverResult{Group: req.Group, To: req.To, Epoch: 9, TookMS: 7}, f.err
}

func (f *fake) Rejoin(context.Context) error {
	f.asked = append(f.asked, "rejoin")
	return f.err
}

func (f *fake) Plan(_ context.Context, req control.PlanRequest) (control.Plan, error) {
	f.asked = append(f.asked, req)
	return control.Plan{Group: req.Group, From: "db1", To: req.To, Checks: f.checks, Steps: []string{"this", "that"}}, f.err
}

func (f *fake) Transactions(_ context.Context, req control.TransactionsRequest) (control.Transactions, error) {
	f.asked = append(f.asked, req)
	return control.Transactions{}, f.err
}

func TestPromote(t *testing.T) {
	f := new(fake)
	env := serve(t, f)
	run(t, env, "promote", "writer", "--to", "db2", "--accept-loss", "--reason", "fire").
		expect(t, "promote", ExitOK, "db2 is the primary of writer after 7 ms, epoch 9\n", "")
	req := f.asked[0].(control.PromoteRequest)
	if req.Group != "writer" || req.To != "db2" || !req.AcceptLoss || !strings.HasPrefix(req.Reason, "fire (") {
		t.Errorf("asked %+v", req)
	}
	run(t, env, "promote", "writer", "--to", "db2").expect(t, "promote", ExitOK, "primary", "")
	if f.asked[1].(control.PromoteRequest).AcceptLoss {
		t.Error("loss was accepted without a word of the operator's")
	}
	f.err = control.Refusedf("db1 owns writer")
	run(t, env, "promote", "writer", "--to", "db2").
		expect(t, "a promotion that is refused", ExitFailed, "", "remora: promotion of db2 for writer refused: db1 owns writer\n")
	run(t, env, "promote", "writer").expect(t, "promote without a node", ExitUsage, "", "name the node to be promoted for writer with --to NODE")
}

func TestRejoin(t *testing.T) {
	f := new(fake)
	env := serve(t, f)
	run(t, env, "rejoin").expect(t, "rejoin", ExitOK, "compared again", "")
	f.err = control.Refusedf("the server of db1 is not set aside")
	run(t, env, "rejoin").expect(t, "rejoin", ExitFailed, "", "remora: rejoin refused: the server of db1 is not set aside\n")
}

// A dry run asks for the plan and for nothing else, and tells by its exit code whether a condition fails.
func TestSwitchoverDryRun(t *testing.T) {
	f := &fake{checks: []control.PlanCheck{{What: "it can"}, {What: "it may", Open: "not known yet"}}}
	env := serve(t, f)
	run(t, env, "switchover", "writer", "--to", "db2", "--dry-run").expect(t, "a plan", ExitOK, `switchover of writer from db1 to db2
  ok    it can
  later it may: not known yet
what would be done
  1. this
  2. that
Nothing was changed.
`, "")
	f.checks = append(f.checks, control.PlanCheck{What: "it is near", Failed: "it is 9s behind"})
	run(t, env, "switchover", "writer", "--to", "db2", "--dry-run").
		expect(t, "a plan that fails", ExitFailed, "  FAILS it is near: it is 9s behind\n", "remora: a condition of the switchover does not hold\n")
	for _, a := range f.asked {
		if _, ok := a.(control.PlanRequest); !ok {
			t.Errorf("a dry run asked for %+v", a)
		}
	}
}
