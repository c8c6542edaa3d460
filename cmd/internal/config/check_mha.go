package config

import (
	"strings"
	"time"
)

// Defaults and bounds of the [mha] table.
const (
	DefaultMHAWait  = 60 * time.Second
	DefaultMHAWaive = 30 * time.Second
	longestMHA      = time.Hour
)

func (c *checker) mha() {
	c.cfg.MHA = MHA{Wait: DefaultMHAWait, Waive: DefaultMHAWaive}
	for _, s := range []struct {
		key  string
		from span
		to   *time.Duration
	}{{"wait", c.raw.MHA.Wait, &c.cfg.MHA.Wait}, {"waive", c.raw.MHA.Waive, &c.cfg.MHA.Waive}} {
		if !s.from.set() {
			continue
		}
		*s.to = s.from.val
		if (s.from.val < time.Second || s.from.val > longestMHA) && c.isWellFormed(s.from.at, "[mha] "+s.key) {
			c.bad(s.from.at, "[mha] "+s.key, "is %v: use 1s to %v", s.from.val, longestMHA)
		}
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
