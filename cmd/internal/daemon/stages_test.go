package daemon

import (
	"slices"
	"testing"

	"github.com/remora-ha/remora/core"
)

// Each change in the ledger is told once, and what ends without a grant as well.
func TestStages(t *testing.T) {
	group := func(policy core.Policy, owner core.NodeName, e core.Epoch, mv *core.Move) core.GroupState {
		return core.GroupState{Spec: core.GroupSpec{Name: "writer", Policy: policy}, Owner: owner, Epoch: e, Move: mv}
	}
	handedOver := func(owner core.NodeName, e core.Epoch, from core.NodeName) core.GroupState {
		g := group(core.AnyHealthy, owner, e, nil)
		g.Handover = &core.Handover{From: from, Epoch: e - 1}
		return g
	}
	asked, drained := &core.Move{To: "db2"}, &core.Move{To: "db2", Drained: true}
	for _, test := range []struct {
		what   string
		states []core.GroupState
		want   []string
	}{
		{"switchover under promote", []core.GroupState{
			group(core.Promote, "db1", 3, nil), group(core.Promote, "db1", 3, asked), group(core.Promote, "db1", 3, asked),
			group(core.Promote, "db1", 3, drained), group(core.Promote, "db2", 4, nil), group(core.Promote, "db2", 4, nil),
		}, []string{"db1 becomes read-only, its transactions end", "db1 is read-only and drained: db2 applies what it has not yet",
			"granted to db2 in epoch 4: its server becomes writable, then the address answers"}},
		{"one that is aborted", []core.GroupState{
			group(core.Promote, "db1", 3, nil), group(core.Promote, "db1", 3, drained), group(core.Promote, "db1", 3, nil),
		}, []string{"db1 is read-only and drained: db2 applies what it has not yet", "aborted: db1 stays the owner"}},
		{"switchover under any", []core.GroupState{
			group(core.AnyHealthy, "db1", 3, nil), group(core.AnyHealthy, "db1", 3, asked), group(core.AnyHealthy, "db2", 4, nil),
		}, []string{"db1 gives the addresses up", "granted to db2 in epoch 4: it binds the addresses"}},
		{"one that is handed over, soon after another", []core.GroupState{
			handedOver("db1", 3, "db2"), handedOver("db1", 3, "db2"), group(core.AnyHealthy, "db1", 3, nil), handedOver("db2", 4, "db1"),
			group(core.AnyHealthy, "db2", 4, nil),
		}, []string{"granted to db2 in epoch 4, once db1 has given the addresses up", "granted to db2 in epoch 4: it binds the addresses"}},
		{"promotion by an operator's word", []core.GroupState{
			group(core.Promote, "", 3, nil), group(core.Promote, "", 3, nil), group(core.Promote, "db2", 4, nil),
		}, []string{"nobody owns it: the servers stop their receivers and say what they have",
			"granted to db2 in epoch 4: its server becomes writable, then the address answers"}},
	} {
		s := stages{before: test.states[0]}
		var got []string
		for _, g := range test.states {
			if text := s.next(g); text != "" {
				got = append(got, text)
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", test.what, got, test.want)
		}
	}
}
