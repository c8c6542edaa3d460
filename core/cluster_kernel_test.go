package core

// call is a system call: f gets what went wrong, or nothing.
func (c *cluster) call(n *node, what string, f func(bad string)) {
	m := n.m
	end := func() {
		if n.up && n.m == m {
			f(n.fail[what])
		}
	}
	if n.hang[what] {
		n.hung = append(n.hung, end)
		return
	}
	c.after(kernelDelay, end)
}

func (c *cluster) bind(n *node, a Bind, bad string, hung bool) {
	switch {
	case bad != "":
		c.step(n.name, BindDone{Group: a.Group, Epoch: a.Epoch, Err: bad})
		return
	case c.now > a.NotAfter && !hung: // one that hung had looked at the clock before
		c.step(n.name, BindDone{Group: a.Group, Epoch: a.Epoch, Err: "too late", Late: true})
		return
	}
	for _, p := range a.Spec.Addresses {
		n.bound[p.Addr()] = a.Epoch
		delete(n.foreign, p.Addr())
		c.checkOneHolder(p.Addr())
	}
	c.step(n.name, BindDone{Group: a.Group, Epoch: a.Epoch})
	for _, p := range a.Spec.Addresses {
		c.step(n.name, AddressesSeen{{Address: p.Addr(), Present: true, Ours: true}})
	}
}

func (c *cluster) extend(n *node, a Extend, bad string) {
	done := ExtendDone{Group: a.Group, Epoch: a.Epoch, Err: bad}
	for _, p := range a.Spec.Addresses {
		if _, ok := n.bound[p.Addr()]; !ok {
			done.Err, done.Absent = "address is gone", true
		}
	}
	c.step(n.name, done)
}

func (c *cluster) unbind(n *node, a Unbind, bad string) {
	if bad == "" {
		for _, p := range a.Spec.Addresses {
			delete(n.bound, p.Addr())
		}
		n.slept = false
	}
	c.step(n.name, UnbindDone{Group: a.Group, Epoch: a.Epoch, Gone: bad == "", Err: bad})
	for _, p := range a.Spec.Addresses {
		_, ours := n.bound[p.Addr()]
		c.step(n.name, AddressesSeen{{Address: p.Addr(), Present: ours || n.foreign[p.Addr()], Ours: ours}})
	}
}

// finish ends the system calls of a node that hang.
func (c *cluster) finish(name NodeName) {
	n := c.nodes[name]
	ends := n.hung
	n.hung = nil
	clear(n.hang)
	for _, end := range ends {
		end()
	}
}
