package control

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEveryOperation(t *testing.T) {
	f := new(fake)
	c := Local(start(t, f))
	ctx := t.Context()
	s, err := c.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sample(), s); diff != "" {
		t.Errorf("status (-sent +got):\n%s", diff)
	}
	h, err := c.History(ctx, HistoryRequest{Group: "writer", Limit: 3})
	if err != nil || len(h) != 1 || h[0].Index != 3 || h[0].Group != "writer" {
		t.Errorf("history %+v, %v", h, err)
	}
	tr, err := c.Trace(ctx, TraceRequest{})
	if err != nil || len(tr.Pieces) != 1 || tr.Pieces[0].Marks[0].US != 3 || tr.Silent["db2"] != "gone" || f.traces[0].Forwarded {
		t.Errorf("trace %+v, %v, asked %+v", tr, err, f.traces)
	}
	r, err := c.Switchover(ctx, SwitchoverRequest{Group: "writer", To: "db2", Reason: "work"})
	if err != nil || r != (SwitchoverResult{"writer", "db1", "db2", 9, 7}) {
		t.Errorf("switchover %+v, %v", r, err)
	}
	if err := c.Pause(ctx, PauseRequest{Group: "writer", On: true, Reason: "work"}); err != nil {
		t.Errorf("pause: %v", err)
	}
	if diff := cmp.Diff([]SwitchoverRequest{{Group: "writer", To: "db2", Reason: "work"}}, f.switchover); diff != "" {
		t.Errorf("switchover asked (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]PauseRequest{{Group: "writer", On: true, Reason: "work"}}, f.pauses); diff != "" {
		t.Errorf("pause asked (-want +got):\n%s", diff)
	}
}

// The stages of an operation come before its end, also by way of another daemon, and only to those who ask for them.
func TestStagesAreTold(t *testing.T) {
	f := &fake{stages: []Stage{{"db1 gives the addresses up", 700}, {"db2 serves", 12_000}}}
	there := Local(start(t, f))
	for name, c := range map[string]*Client{"at the leader": there, "at another node": Local(start(t, there))} {
		t.Run(name, func(t *testing.T) {
			var got []Stage
			ctx := WithStages(t.Context(), func(s Stage) { got = append(got, s) })
			r, err := c.Switchover(ctx, SwitchoverRequest{Group: "writer", To: "db2"})
			if err != nil || r.Epoch != 9 {
				t.Errorf("switchover %+v, %v", r, err)
			}
			if diff := cmp.Diff(f.stages, got); diff != "" {
				t.Errorf("stages (-sent +got):\n%s", diff)
			}
			if _, err := c.Switchover(t.Context(), SwitchoverRequest{Group: "writer", To: "db2"}); err != nil || len(got) != len(f.stages) {
				t.Errorf("without asking: %v, %d stages", err, len(got))
			}
		})
	}
	f.err = Refusedf("no")
	told := 0
	var e *Error
	_, err := there.Switchover(WithStages(t.Context(), func(Stage) { told++ }), SwitchoverRequest{})
	if !errors.As(err, &e) || e.Code != CodeRefused || told != len(f.stages) {
		t.Errorf("a refusal after %d stages: %v", told, err)
	}
}

func TestEveryOperationOfFailoverManagers(t *testing.T) {
	f := new(fake)
	c := Local(start(t, f))
	ctx := t.Context()
	req := AdviceRequest{Command: "start", Online: true, Group: "writer", Old: DBServer{Host: "db1"}, New: DBServer{Host: "db2", IP: "10.77.0.12"}, By: "MHA"}
	r, err := c.Advise(ctx, req)
	if want := (AdviceResult{Outcome: AdviceSeen, Group: "writer", Node: "db2", Owner: "db2", Epoch: 9, TookMS: 7}); err != nil || r != want {
		t.Errorf("advise %+v, %v", r, err)
	}
	if diff := cmp.Diff([]AdviceRequest{req}, f.advice); diff != "" {
		t.Errorf("advice (-want +got):\n%s", diff)
	}
	if s, err := c.Sight(ctx, SightRequest{Group: "01"}); err != nil || s != (Sight{MAC: "02:00:00:00:00:01", Own: true}) {
		t.Errorf("sight %+v, %v", s, err)
	}
	a, err := c.AskServer(ctx, ServerRequest{Server: DBServer{Host: "db1"}})
	if diff := cmp.Diff(ServerAnswer{Node: "db1", Answered: []string{"false"}, ReadOnly: "no"}, a); err != nil || diff != "" {
		t.Errorf("server %v\n%s", err, diff)
	}
	if err := c.Report(ctx, ReportRequest{Text: "done"}); err != nil || len(f.reports) != 1 || f.reports[0] != "done" {
		t.Errorf("report %v, %q", err, f.reports)
	}
}
