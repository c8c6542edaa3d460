package daemon

import (
	"testing"

	"github.com/remora-ha/remora/cmd/internal/config"
	"github.com/remora-ha/remora/core"
)

// The account is asked for what the most demanding group needs; readers need the replica's state, as follow does.
func TestPolicyThatTheAccountNeeds(t *testing.T) {
	group := func(r core.Role, p core.Policy) config.Group {
		return config.Group{GroupSpec: core.GroupSpec{Role: r, Policy: p}}
	}
	reader := group(core.Reader, "")
	for _, tt := range []struct {
		groups []config.Group
		want   core.Policy
	}{
		{nil, ""},
		{[]config.Group{reader}, core.Follow},
		{[]config.Group{reader, group(core.Writer, core.AnyHealthy), reader}, core.AnyHealthy},
		{[]config.Group{reader, group(core.Writer, core.Follow), group(core.Writer, core.Promote)}, core.Promote},
	} {
		if got := policyOf(&config.Config{Groups: tt.groups}); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.groups, got, tt.want)
		}
	}
}
