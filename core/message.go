package core

import "time"

// Message is one of the datagrams that nodes exchange: Report, Confirm, Echo, Ack, Notice, ReleaseRequest. Each is
// complete in itself and superseded by the next of its kind, so none is ever sent again because it may have been lost.
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

// Report is what every node tells all others in each heartbeat interval. A report of an owner asks for the renewal of
// the leases of the groups that it lists as claiming or serving.
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
	// Leaving is set by a node that shuts down: it takes no grants.
	Leaving bool
	// Starting is set by a node that does not take part yet.
	Starting bool
	// DryRun is set by a node that carries nothing out in its kernel.
	DryRun bool
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
type Notice struct {
	Group GroupName
	State GroupState
}

// ReleaseRequest asks the leader to commit the release of a group that the sender has unbound and read back.
type ReleaseRequest struct {
	Group  GroupName
	Epoch  Epoch
	Reason string
	// Unproved is set when the holding ended before the addresses were known to be free on the link.
	Unproved bool
}

func (Report) message()         {}
func (Confirm) message()        {}
func (Echo) message()           {}
func (Ack) message()            {}
func (Notice) message()         {}
func (ReleaseRequest) message() {}
