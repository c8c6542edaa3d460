package sim

import (
	"net/netip"

	"github.com/remora-ha/remora/core"
)

const (
	// iface carries all addresses on all nodes.
	iface = "eth0"
	// writerAddrs and writerGroups bound what a seed can configure for writers; readers come after those.
	writerAddrs  = 6
	writerGroups = 4
	maxReaders   = 2
	maxAddrs     = writerAddrs + maxReaders
	maxGroups    = writerGroups + maxReaders
)

// kaddr is an address in a node's kernel.
type kaddr struct {
	bound bool
	ours  bool // it carries Remora's mark
	group int
	epoch core.Epoch
	// report is what the fence makes the address point to, 0 when it is closed; shut is when it was closed last.
	report core.Seq
	shut   int64
	// byHand is when a person has bound it.
	byHand int64
	// deleted is set when a person has removed the address while Remora held it.
	deleted bool
	// dies is when the kernel removes the address because its lifetime is over; only nodes without a fence need it.
	dies int64
}

// kernel is what outlives a process.
type kernel struct {
	n     *node
	addrs [maxAddrs]kaddr
	// armed are the reports that live in the fence, by number.
	armed [maxReports]armedReport
	// life counts the times the machine was switched on: a system call does not outlast its kernel.
	life int
	// pending are the system calls that a killed process was in; the process ends only when they have.
	pendingUntil int64
	slowUntil    int64
	failUntil    int64
	hangUntil    int64
}

// answers reports whether the node answers for an address now.
func (k *kernel) answers(a int) bool {
	c := &k.addrs[a]
	return c.bound && c.ours && (!k.n.w.plan.kernelLease || k.n.unfenced || k.alive(c.report))
}

func (k *kernel) bind(a, group int, e core.Epoch) {
	c := &k.addrs[a]
	fresh := !c.bound || !c.ours
	c.bound, c.ours, c.group, c.epoch, c.deleted = true, true, group, e, false
	if fresh {
		k.n.w.or.bound(k.n, a)
		k.n.seen(a)
	}
}

func (k *kernel) remove(a int) {
	if c := &k.addrs[a]; c.bound {
		k.n.w.or.unbound(k.n, a)
		c.bound, c.ours = false, false
		k.n.seen(a)
	}
}

// removeOurs is the clean-up at a start.
func (k *kernel) removeOurs() {
	for a := range k.addrs {
		if k.addrs[a].ours {
			k.remove(a)
		}
	}
}

// seen lets the netlink watcher report the state of an address.
func (n *node) seen(a int) {
	if n.proc == nil {
		return
	}
	w := n.w
	n.netlinkAt = max(n.netlinkAt, w.now+int64(w.dice.about(w.plan.mailbox)))
	c := n.kern.addrs[a]
	ev := core.AddressesSeen{{Address: address(a), Present: c.bound, Ours: c.bound && c.ours}}
	w.q.push(n.netlinkAt, item{kind: processEvent, node: int8(n.id), gen: n.gen, ev: ev})
}

func address(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 77, 0, byte(100 + i)}) }

func addressIndex(a netip.Addr) int { b := a.As4(); return int(b[3]) - 100 }
