package core

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// counts are GTID sets as the tests write them, "a:5,b:2": the first five transactions of a and the first two of b.
type counts map[string]int

func parseCounts(text string) (counts, error) {
	c := counts{}
	if text == "" {
		return c, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		name, n, ok := strings.Cut(part, ":")
		v, err := strconv.Atoi(n)
		if !ok || err != nil || v < 0 {
			return nil, fmt.Errorf("%q is no set", text)
		}
		c[name] = v
	}
	return c, nil
}

func (c counts) String() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(c)) {
		parts = append(parts, fmt.Sprintf("%s:%d", name, c[name]))
	}
	return strings.Join(parts, ",")
}

func (c counts) merge(other counts) counts {
	u := maps.Clone(c)
	for name, n := range other {
		u[name] = max(u[name], n)
	}
	return u
}

// missing returns what of c is not in other.
func (c counts) missing(other counts) counts {
	left := counts{}
	for name, n := range c {
		if n > other[name] {
			left[name] = n - other[name]
		}
	}
	return left
}

// countSets is the arithmetic of such sets.
type countSets struct{}

func (countSets) Missing(a, b string) (uint64, error) {
	x, err1 := parseCounts(a)
	y, err2 := parseCounts(b)
	if err1 != nil || err2 != nil {
		return 0, fmt.Errorf("%q and %q are not both sets", a, b)
	}
	n := 0
	for _, v := range x.missing(y) {
		n += v
	}
	return uint64(n), nil
}

func (countSets) Union(a, b string) (string, error) {
	x, err1 := parseCounts(a)
	y, err2 := parseCounts(b)
	if err1 != nil || err2 != nil {
		return "", fmt.Errorf("%q and %q are not both sets", a, b)
	}
	return x.merge(y).String(), nil
}

// server is the MySQL of a node, as simple as can be: what is written on a primary is at once with all that receive from
// it, and executed there unless they lag.
type server struct {
	node      *node
	writable  bool
	executed  counts
	received  counts // besides
	source    NodeName
	receiving bool
	lags      bool
}

// sql makes a node's server, or changes it, and lets the detector see that.
func (c *cluster) sql(n *node, f func(s *server)) {
	if n.sql == nil {
		n.sql = &server{node: n, executed: counts{}, received: counts{}}
	}
	f(n.sql)
	c.look(n)
}

// look gives the machine what the detector sees of the server.
func (c *cluster) look(n *node) {
	s := n.sql
	h := n.health
	h.Writable, h.Replicating, h.Source, h.Executed = No, No, "", s.executed.String()
	if s.writable {
		h.Writable = Yes
	}
	if s.receiving {
		h.Replicating = Yes
	}
	if s.source != "" {
		h.Source = c.spec(s.source).Server().String()
	}
	n.health = h
	c.step(n.name, HealthChanged{Health: h})
}

func (c *cluster) spec(name NodeName) NodeSpec {
	i := slices.IndexFunc(c.cfg.Nodes, func(s NodeSpec) bool { return s.Name == name })
	return c.cfg.Nodes[i]
}

// write commits n transactions on a server, which must be writable. Only servers whose host is up and linked receive them.
func (c *cluster) write(n *node, count int) {
	if !n.sql.writable || n.health.State != Healthy {
		c.t.Fatalf("write on %s, which is not writable", n.name)
	}
	n.sql.executed[string(n.name)] += count
	c.replicate(n)
	c.look(n)
}

func (c *cluster) replicate(from *node) {
	for _, name := range c.names {
		to := c.nodes[name]
		if to.sql == nil || to.sql.source != from.name || !to.sql.receiving || c.cut[[2]NodeName{from.name, name}] {
			continue
		}
		to.sql.received = to.sql.received.merge(from.sql.executed)
		if !to.sql.lags {
			to.sql.executed = to.sql.executed.merge(to.sql.received)
		}
		c.look(to)
	}
}

// onServer carries out an act on a server, if a is one.
func (c *cluster) onServer(n *node, a Action) {
	switch a := a.(type) {
	case FreezeServer:
		c.call(n, "freeze", func(bad string) {
			n.sql.receiving = n.sql.receiving && bad != ""
			c.step(n.name, ServerFrozen{Group: a.Group, Epoch: a.Epoch, Round: a.Round, Executed: n.sql.executed.String(),
				Received: n.sql.received.String(), Err: bad})
			c.look(n)
		})
	case DemoteServer:
		c.call(n, "demote", func(bad string) {
			n.sql.writable = n.sql.writable && bad != ""
			c.step(n.name, ServerDemoted{Group: a.Group, Epoch: a.Epoch, Executed: n.sql.executed.String(), Err: bad})
			c.look(n)
		})
	case PromoteServer:
		c.call(n, "promote", func(bad string) { c.promote(n, a, bad) })
	case CatchUpServer:
		c.call(n, "catchup", func(bad string) {
			n.sql.executed = n.sql.executed.merge(n.sql.received)
			want, _ := parseCounts(a.Executed)
			if bad == "" && len(want.missing(n.sql.executed)) > 0 {
				bad = "it has not received everything"
			}
			c.step(n.name, ServerCaughtUp{Group: a.Group, Epoch: a.Epoch, Move: a.Move, Err: bad})
		})
	case FollowServer:
		c.call(n, "follow", func(bad string) { c.follow(n, a, bad) })
	}
}

func (c *cluster) promote(n *node, a PromoteServer, bad string) {
	if bad == "" && a.Keep {
		bad = n.mayOpen(a)
	}
	ev := ServerPromoted{Group: a.Group, Epoch: a.Epoch, Err: bad}
	if bad == "" {
		if !a.Keep {
			n.sql.executed = n.sql.executed.merge(n.sql.received)
			n.sql.source, n.sql.receiving = "", false
		}
		ev.Executed = n.sql.executed.String()
		if ev.Late = c.now > a.NotAfter; !ev.Late {
			n.sql.writable = true
			c.checkOneWriter()
		}
	}
	c.step(n.name, ev)
	c.look(n)
}

// mayOpen returns why a server that nothing else is done to is not made writable, or nothing.
func (n *node) mayOpen(a PromoteServer) string {
	switch {
	case n.sql.source != "" && a.Undo:
		return "it replicates"
	case n.sql.receiving:
		return "its applier runs"
	case a.Undo && (n.health.MHAActs == Yes || n.health.MHAWatches == Yes):
		return "MHA holds a lock"
	}
	return ""
}

// checkOneWriter is I10 where no port is fenced: the old writer is read-only or dead before the new one is writable, unless
// it is cut off.
func (c *cluster) checkOneWriter() {
	var writers []NodeName
	for _, name := range c.names {
		n := c.nodes[name]
		if n.sql != nil && n.sql.writable && n.health.State == Healthy && n.up && !n.frozen && c.majority(name) {
			writers = append(writers, name)
		}
	}
	if len(writers) > 1 {
		c.t.Errorf("%v are writable at once", writers)
	}
}

func (c *cluster) follow(n *node, a FollowServer, bad string) {
	ev := ServerFollows{Group: a.Group, Epoch: a.Epoch, Err: bad}
	source, err := parseCounts(a.SourceExecuted)
	if err != nil {
		c.t.Errorf("%s is to follow a source with the set %q", n.name, a.SourceExecuted)
	}
	if errant := n.sql.executed.merge(n.sql.received).missing(source); bad == "" && len(errant) > 0 {
		ev.Errant = errant.String()
	}
	if bad == "" && ev.Errant == "" {
		for _, name := range c.names {
			if c.spec(name).Server() == a.Source {
				n.sql.source, n.sql.receiving = name, true
				defer c.replicate(c.nodes[name])
			}
		}
	}
	c.step(n.name, ev)
	c.look(n)
}

// sqlCommand is what scripts do to servers.
func (s *script) sqlCommand(cmd string, n *node, args []string, opts map[string]string) bool {
	switch cmd {
	case "sql":
		s.c.sql(n, func(sv *server) {
			for _, a := range args {
				sv.writable = a == "writable" || sv.writable && a != "read-only"
				sv.lags = a == "lags" || sv.lags && a != "applies"
			}
			if v, ok := opts["executed"]; ok {
				sv.executed, _ = parseCounts(v)
			}
			if v, ok := opts["received"]; ok {
				sv.received, _ = parseCounts(v)
			}
			if v, ok := opts["source"]; ok {
				sv.source, sv.receiving = NodeName(v), v != ""
			}
		})
	case "write":
		s.c.write(n, s.number(args[0]))
	default:
		return false
	}
	return true
}

// servers describes all servers.
func (c *cluster) servers() string {
	var texts []string
	for _, name := range c.names {
		n := c.nodes[name]
		if n.sql == nil {
			continue
		}
		text := fmt.Sprintf("%s %s", name, n.sql.executed)
		if n.health.State != Healthy {
			text += " " + n.health.State.String()
		}
		text += flagged(n.sql.writable, " writable")
		if n.sql.source != "" {
			text += fmt.Sprintf(" source=%s%s", n.sql.source, flagged(!n.sql.receiving, " (stopped)"))
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, "; ")
}
