package core

type entry struct {
	term Term
	cmd  Command
}

type proposal struct {
	by   NodeName
	term Term
	cmd  Command
	at   Instant // when it can be in the log at the earliest
}

func (c *cluster) send(n *node, s Send) {
	if r, ok := s.Msg.(Report); ok {
		r.Term = n.term
		s.Msg = r
	}
	if s.To == n.name {
		c.after(0, func() { c.step(n.name, Received{From: n.name, Msg: s.Msg, Term: n.term}) })
		return
	}
	to := c.nodes[s.To]
	if to == nil || c.cut[[2]NodeName{n.name, s.To}] {
		return
	}
	m := to.m
	c.after(netDelay, func() {
		if to.m == m && m != nil && !c.cut[[2]NodeName{n.name, s.To}] {
			c.step(s.To, Received{From: n.name, Msg: s.Msg, Term: to.term})
		}
	})
}

func (c *cluster) propose(n *node, p Propose) {
	switch {
	case c.leader != n.name && n.term == c.term:
		c.after(netDelay, func() { c.step(n.name, ProposalFailed{ID: p.Command.ID, Known: true, Reason: "not the leader"}) })
	case p.NotAfter != 0 && c.now > p.NotAfter:
		c.after(0, func() { c.step(n.name, ProposalFailed{ID: p.Command.ID, Known: true, Reason: "too late"}) })
	default:
		c.waiting = append(c.waiting, proposal{by: n.name, term: n.term, cmd: p.Command, at: c.now.Add(commitDelay)})
		c.after(commitDelay, c.commit)
	}
}

// commit puts what waits into the log, if it may.
func (c *cluster) commit() {
	if c.holding || c.leader == "" || !c.majority(c.leader) {
		return
	}
	ready := c.waiting
	c.waiting = nil
	for _, p := range ready {
		if p.by != c.leader || p.term != c.term || c.now.Before(p.at) {
			c.waiting = append(c.waiting, p)
			continue
		}
		c.log = append(c.log, entry{term: p.term, cmd: p.cmd})
		c.trace("log %d: %s", len(c.log), formatOps(p.cmd.Ops))
		c.apply(c.leader)
	}
	for _, name := range c.names {
		if name != c.leader {
			c.after(followDelay, func() { c.catchUp(name) })
		}
	}
}

func (c *cluster) catchUp(name NodeName) {
	if c.leader != "" && (name == c.leader || c.linked(name, c.leader) && !c.nodes[name].deaf) {
		c.apply(name)
	}
}

// apply brings a node to the end of the log.
func (c *cluster) apply(name NodeName) {
	n := c.nodes[name]
	for n.up && n.applied < len(c.log) {
		e := c.log[n.applied]
		n.applied++
		before := n.ledger.View()
		out := n.ledger.Apply(Index(n.applied), e.term, e.cmd)
		if name == c.leader {
			c.checkGrants(before, n.ledger.View())
		}
		c.step(name, Committed{Index: Index(n.applied), Term: e.term, Command: e.cmd, Outcomes: out, View: n.ledger.View()})
	}
}

func (c *cluster) linked(a, b NodeName) bool {
	return c.nodes[a].up && c.nodes[b].up && !c.cut[[2]NodeName{a, b}] && !c.cut[[2]NodeName{b, a}]
}

func (c *cluster) majority(name NodeName) bool {
	count := 0
	for _, other := range c.names {
		if other == name && c.nodes[name].up || other != name && c.linked(name, other) {
			count++
		}
	}
	return 2*count > len(c.names)
}

// elect makes a node the Raft leader. Nodes that it can not reach do not hear of it.
func (c *cluster) elect(name NodeName) {
	if !c.majority(name) {
		c.t.Fatalf("elect %s: it reaches no majority", name)
	}
	old := c.leader
	c.term++
	c.leader = name
	for _, n := range c.names {
		if n == name || c.linked(n, name) && !c.nodes[n].deaf {
			c.nodes[n].term = c.term
		}
	}
	if old != "" && old != name && c.nodes[old].term == c.term {
		c.depose(old)
	}
	c.apply(name)
	for _, n := range c.names {
		if c.nodes[n].term == c.term {
			c.step(n, LeaderSeen{Leader: name})
		}
	}
	c.step(name, Elected{Term: c.term})
}

// depose tells a former leader that it is none any more. What it has proposed and is not committed never will be.
func (c *cluster) depose(name NodeName) {
	keep := c.waiting[:0:0]
	for _, p := range c.waiting {
		if p.by == name && p.term < c.term {
			c.step(name, ProposalFailed{ID: p.cmd.ID, Reason: "leadership lost"})
			continue
		}
		keep = append(keep, p)
	}
	c.waiting = keep
	c.step(name, Deposed{})
}

// heal joins the network again.
func (c *cluster) heal() {
	clear(c.cut)
	for _, name := range c.names {
		n := c.nodes[name]
		n.deaf = false
		if n.up && n.term < c.term {
			n.term = c.term
			c.depose(name)
			c.step(name, LeaderSeen{Leader: c.leader})
		}
		c.catchUp(name)
	}
}

func (c *cluster) isolate(name NodeName) {
	for _, other := range c.names {
		c.cut[[2]NodeName{name, other}], c.cut[[2]NodeName{other, name}] = true, true
	}
}
