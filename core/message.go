package core

import (
	"hash/fnv"
	"net/netip"
	"time"
)

// Message is one of the datagrams that nodes exchange: Report, Confirm, Echo, Ack, Notice, ReleaseRequest,
// Freeze, Frozen, Drained, CaughtUp, Clients. Each is complete in itself and superseded by the next of its
// kind, so none is ever sent again because it may have been lost.
type Message interface{ message() }

// HoldPhase says how far a node is with a group that the ledger gives it.
type HoldPhase uint8

// The phases of a holding.
const (
	// Claiming: granted, and not all addresses bound yet.
	Claiming HoldPhase = iota + 1
	// Serving: bound, read back and announced.
	Serving
	// Yielding: being given up, or unbound and waiting for the release to be committed.
	Yielding
)

// String returns the phase in one lower-case word.
func (p HoldPhase) String() string {
	switch p {
	case Claiming:
		return "claiming"
	case Serving:
		return "serving"
	case Yielding:
		return "yielding"
	default:
		return "none"
	}
}

// Holding is one group in a report.
type Holding struct {
	Group GroupName
	Epoch Epoch
	Phase HoldPhase
}

// Report is what every node tells the others about itself, an owner in each heartbeat interval, see [Machine.Step]. A report of
// an owner asks for the renewal of the leases of the groups that it lists as claiming or serving.
type Report struct {
	Incarnation Incarnation
	Seq         Seq
	Health      Health
	Holds       []Holding
	// Blocked names groups that this node could not serve now, with the reason: its link is down, its interface is
	// missing, somebody else answers for the address.
	Blocked []Blocked
	// Foreign names groups of which an address is bound on this node, but not by Remora.
	Foreign []GroupName
	// Term is the sender's own current Raft term, 0 if it does not vote. Whoever sends a report on behalf of the machine
	// reads it then and not before: a report is its sender's Echo to what it asks for itself.
	Term Term
	// Leaving is set by a node that shuts down: it takes no grants.
	Leaving bool
	// Aside says why the server of this node is set aside: it has transactions that the owner's lacks. It is never granted
	// a group of policy promote, and never touched, until an operator says so.
	Aside string
	// Starting is set by a node that does not take part yet.
	Starting bool
	// DryRun is set by a node that carries nothing out in its kernel.
	DryRun bool
	// Unfenced is set by a node whose kernel holds leases by the lifetimes of addresses alone.
	Unfenced bool
	// Config is the version of the configuration file that the node runs with.
	Config uint64
	// Release is the version of the remora binary.
	Release string
}

// Blocked is a group that a node can not serve now.
type Blocked struct {
	Group  GroupName
	Reason string
}

// Confirm asks every voter whether the sender's term is still current.
type Confirm struct {
	Term  Term
	Nonce uint64
}

// Echo answers a Confirm whose term is the voter's own current term. Nothing else is ever answered.
type Echo struct {
	Term  Term
	Nonce uint64
}

// Ack renews leases: each lasts for TTL from the moment at which the named report was sent.
type Ack struct {
	Term        Term // of the arbiter's office
	Incarnation Incarnation
	Seq         Seq
	TTL         time.Duration
	Groups      []GroupEpoch
}

// GroupEpoch names one holding.
type GroupEpoch struct {
	Group GroupName
	Epoch Epoch
}

// Notice is the leader's news that an entry is committed. It tells a node the state of a group before its own Raft log
// does. States are ordered by Index.
//
// Addresses of which there are more than [MaxNoticed] are left out of the state's Spec and Next, since they do not fit into a
// datagram. Their digest stands for them, 0 where they are named; a node that does not know them waits for its log.
type Notice struct {
	Group      GroupName
	State      GroupState
	Spec, Next AddressDigest
}

// MaxNoticed is how many addresses of a group a Notice names.
const MaxNoticed = 16

// AddressDigest is what a list of addresses is recognised by.
type AddressDigest uint64

// digestOf is not 0.
func digestOf(addrs []netip.Prefix) AddressDigest {
	h := fnv.New64a()
	var b []byte
	for _, a := range addrs {
		b = append(a.Addr().AppendTo(b[:0]), '/', byte(a.Bits()))
		h.Write(b)
	}
	return AddressDigest(max(h.Sum64(), 1))
}

// NewNotice tells of a committed state, without the addresses if they are too many.
func NewNotice(name GroupName, g GroupState) Notice {
	n := Notice{Group: name, State: g}
	if addrs := g.Spec.Addresses; len(addrs) > MaxNoticed {
		n.Spec, n.State.Spec.Addresses = digestOf(addrs), nil
	}
	if g.Next != nil && len(g.Next.Addresses) > MaxNoticed {
		next := *g.Next
		n.Next, next.Addresses = digestOf(next.Addresses), nil
		n.State.Next = &next
	}
	return n
}

// whole returns the state with all addresses, if those left out are among what is known of the group.
func (n Notice) whole(known GroupState) (g GroupState, ok bool) {
	g = n.State
	lists := [][]netip.Prefix{known.Spec.Addresses}
	if known.Next != nil {
		lists = append(lists, known.Next.Addresses)
	}
	find := func(d AddressDigest) []netip.Prefix {
		for _, l := range lists {
			if len(l) > MaxNoticed && digestOf(l) == d {
				return l
			}
		}
		return nil
	}
	if n.Spec != 0 {
		if g.Spec.Addresses = find(n.Spec); g.Spec.Addresses == nil {
			return g, false
		}
	}
	if n.Next != 0 && g.Next != nil {
		next := *g.Next
		if next.Addresses = find(n.Next); next.Addresses == nil {
			return g, false
		}
		g.Next = &next
	}
	return g, true
}

// ReleaseRequest asks the leader to commit the release of a group that the sender has unbound and read back. It goes to all: to
// whom the group is handed over it says that nothing is left of the holding before.
type ReleaseRequest struct {
	Group  GroupName
	Epoch  Epoch
	Reason string
	// Unproved is set when the holding ended before the addresses were known to be free on the link.
	Unproved bool
	// Failed is set when the sender's server has failed. Its report says so, too, and may come later.
	Failed bool
}

// Freeze asks a node to stop the receiver of its replica and to report its sets, so that a choice rests on sets that do
// not move. It is sent again until the answer has come or the time for it is over.
type Freeze struct {
	Group GroupName
	// Epoch is the epoch whose end is being dealt with.
	Epoch Epoch
	// Round is the arbiter's number of this choice.
	Round uint64
	// Term is the term of the arbiter's office.
	Term Term
}

// Frozen answers a Freeze with the sets of the node's server, whole. Err says why there are none.
type Frozen struct {
	Group    GroupName
	Epoch    Epoch
	Round    uint64
	Executed string
	Received string
	Err      string
}

// Drained says that the server of an owner is read-only and idle for the sake of a switchover, with its executed set, or
// why it is not.
type Drained struct {
	Group GroupName
	Epoch Epoch
	// Move is the log position of the intent.
	Move     Index
	Executed string
	Err      string
}

// CaughtUp says that the target of a switchover has applied all that the drained owner has executed, or why it has not.
type CaughtUp struct {
	Group GroupName
	Epoch Epoch
	Move  Index
	Err   string
}

// Clients says who is connected to an address of a group on its owner, so that the next owner can make those talk to it that
// would wait for a dead one. Many clients take several messages. The machine has no part in it.
type Clients struct {
	Group GroupName
	Epoch Epoch
	// Server is the address and the port that they are connected to.
	Server netip.AddrPort
	// Ends are the clients' own, at most MaxClients.
	Ends []netip.AddrPort
}

// MaxClients is the number of clients in one message.
const MaxClients = 48

func (Clients) message()        {}
func (Freeze) message()         {}
func (Frozen) message()         {}
func (Drained) message()        {}
func (CaughtUp) message()       {}
func (Report) message()         {}
func (Confirm) message()        {}
func (Echo) message()           {}
func (Ack) message()            {}
func (Notice) message()         {}
func (ReleaseRequest) message() {}
