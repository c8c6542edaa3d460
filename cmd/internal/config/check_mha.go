package config

import (
	"slices"
	"strings"
	"time"
)

// Defaults and bounds of the [mha] table.
const (
	DefaultMHAWait  = 60 * time.Second
	DefaultMHAWaive = 30 * time.Second
	DefaultMHADrain = time.Second
	longestMHA      = time.Hour
	longestMHADrain = 15 * time.Second // a stop has to end within core.AdviceLimit
	// afterMHADrain is what a graceful stop takes besides at the most, until the daemons have seen what has become of it.
	afterMHADrain = 5 * time.Second
)

func (c *checker) mha() {
	raw := &c.raw.MHA
	c.cfg.MHA = MHA{Wait: DefaultMHAWait, Waive: DefaultMHAWaive, Drain: DefaultMHADrain, Graceful: raw.Graceful.val, ClearReadOnly: raw.ClearReadOnly.val}
	m := &c.cfg.MHA
	for _, s := range []struct {
		key      string
		from     span
		to       *time.Duration
		min, max time.Duration
	}{{"wait", raw.Wait, &m.Wait, time.Second, longestMHA}, {"waive", raw.Waive, &m.Waive, time.Second, longestMHA},
		{"drain", raw.Drain, &m.Drain, 0, longestMHADrain}} {
		if !s.from.set() {
			continue
		}
		*s.to = s.from.val
		if (s.from.val < s.min || s.from.val > s.max) && c.isWellFormed(s.from.at, "[mha] "+s.key) {
			c.bad(s.from.at, "[mha] "+s.key, "is %v: use %v to %v", s.from.val, s.min, s.max)
		}
	}
	if raw.Drain.set() && !m.Graceful {
		c.warn(raw.Drain.at, "[mha] drain", "has no effect without graceful = true: delete it")
	}
	if least := m.Drain + afterMHADrain; m.Graceful && raw.Wait.set() && m.Wait < least {
		c.bad(raw.Wait.at, "[mha] wait", "is %v: with graceful = true it must be drain and %v at least, %v", m.Wait, afterMHADrain, least)
	}
	if m.ActsOnServers() && slices.ContainsFunc(c.raw.Groups, func(g rawGroup) bool { return promotes(&g) }) {
		at := raw.Graceful.at
		if !m.Graceful {
			at = raw.ClearReadOnly.at
		}
		c.warn(at, "[mha]", "graceful and clear_read_only have no effect beside a group with policy = \"promote\", which is the master of the servers")
	}
}

// aliases returns the further names of a node.
func (c *checker) aliases(l list) []string {
	var names []string
	for _, t := range l.items {
		if t.val == "" || strings.ContainsAny(t.val, " \t\n/") {
			c.bad(t.at, nodeTable+" aliases", "%q is no host name and no address: write it as app1.cnf does", shorten(t.val))
			continue
		}
		names = append(names, t.val)
	}
	return names
}

// aliasesTwice reports aliases that name another node as well.
func (c *checker) aliasesTwice(l list, names map[string]pos) {
	for _, t := range l.items {
		name := strings.ToLower(t.val)
		if first, twice := names[name]; twice && first != t.at {
			c.bad(t.at, nodeTable+" aliases", "%q names the node in line %d too: give each name to one node", shorten(t.val), first.line)
			continue
		}
		names[name] = t.at
	}
}
