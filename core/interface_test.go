package core

import "testing"

// A group is bound to the interface that the newest file of this node names for it, or for groups that it does not have, and
// else to the group's own.
func TestInterfaceOfThisNode(t *testing.T) {
	old := soloConfig()
	old.Version = 0
	for name, c := range map[string]struct {
		offered []ConfigOffered
		want    string
	}{
		"none":            {nil, "eth0"},
		"for the group":   {[]ConfigOffered{{soloConfig(), map[GroupName]string{"": "bond0", "writer": "bond1"}}}, "bond1"},
		"the group's own": {[]ConfigOffered{{soloConfig(), map[GroupName]string{"": "bond0", "writer": ""}}}, "eth0"},
		"for all others":  {[]ConfigOffered{{soloConfig(), map[GroupName]string{"": "bond0", "other": "bond1"}}}, "bond0"},
		"by a reload": {[]ConfigOffered{{soloConfig(), map[GroupName]string{"writer": "bond0"}}, {soloConfig(), map[GroupName]string{"writer": "bond1"}}},
			"bond1"},
		"not by an older file": {[]ConfigOffered{{soloConfig(), map[GroupName]string{"writer": "bond0"}}, {old, map[GroupName]string{"writer": "bond1"}}},
			"bond0"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSolo(t)
			for _, ev := range c.offered {
				s.step(ev)
			}
			s.prove()
			s.later(s.m.opt.Timing.Heartbeat)
			binds := only[Bind](s.grantTo("n1", soloIncarnation, s.m.seq))
			if len(binds) != 1 || binds[0].Spec.Interface != c.want {
				t.Errorf("bound by %+v, want one to %s", binds, c.want)
			}
		})
	}
}
