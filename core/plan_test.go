package core

import (
	"strings"
	"testing"
	"time"
)

// A plan changes nothing, and says of each condition what a switchover would say.
func TestPlanSaysWhatASwitchoverWould(t *testing.T) {
	s := &script{t: t}
	for line := range strings.Lines(`cluster n1 n2 n3 mgr:witness
group writer promote 10.77.0.100
sql n1 writable executed=n1:7
sql n2 source=n1 executed=n1:7
sql n3 source=n1 executed=n1:7
settled n1 mgr
run 5s`) {
		s.command(strings.Fields(line))
	}
	m := s.c.nodes["mgr"].m
	failing := func(to NodeName) string {
		p := m.PlanMove(m.now, "writer", to)
		for _, c := range p.Checks {
			if c.Why != "" {
				return c.What + ": " + c.Why
			}
		}
		if len(p.Steps) != 7 || p.From != "n1" || !strings.Contains(p.Steps[3], "point of no return") {
			t.Errorf("the plan for %s: %+v", to, p)
		}
		return ""
	}
	if why := failing("n2"); why != "" {
		t.Errorf("a healthy replica: %s", why)
	}
	for to, want := range map[NodeName]string{"n1": "owns writer already", "mgr": "is a witness", "n9": "there is no node"} {
		if why := failing(to); !strings.Contains(why, want) {
			t.Errorf("to %s: %q", to, why)
		}
	}
	if p := m.PlanMove(m.now, "reader", "n2"); len(p.Steps) > 0 || !strings.Contains(p.Checks[0].Why, "there is no group") {
		t.Errorf("of an unknown group: %+v", p)
	}
	s.command(strings.Fields("sql n2 executed=n1:7,x:1"))
	s.command(strings.Fields("run 200ms"))
	if p := m.PlanMove(m.now, "writer", "n2"); p.Checks[len(p.Checks)-1].Open == "" {
		t.Errorf("what has come a moment ago is judged at once: %+v", p.Checks)
	}
	s.command(strings.Fields("run 5s"))
	if why := failing("n2"); !strings.Contains(why, "n2 has no transaction that n1 lacks: it has 1") {
		t.Errorf("a target with a transaction of its own: %q", why)
	}
	if got := m.moveRefused(MoveAsked{Group: "writer", To: "n2"}); !strings.Contains(got, "it has 1") {
		t.Errorf("the switchover is not refused for what the plan shows: %q", got)
	}
	if m.now < Instant(10*time.Second) {
		t.Errorf("the script ran to %v only", m.now)
	}
}
