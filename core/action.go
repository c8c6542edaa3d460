package core

import (
	"net/netip"
	"time"
)

// Action is something that the machine wants done. Actions are carried out in the order of the list that Step returns, Unbinds
// before all others.
// Those that claim (Bind, Extend, Probe, Announce, Propose of a grant but for one that goes with a release) carry NotAfter and
// are dropped when it has passed, unless a Prolong has moved it for Bind, Extend and Announce; those that give up (Unbind)
// never expire.
type Action interface{ action() }

// Bind adds the addresses of a group and reads them back. Addresses that are there already are no error. The answer is
// a BindDone.
type Bind struct {
	Group GroupName
	Epoch Epoch
	Spec  GroupSpec
	// Lifetime is the valid lifetime that the kernel is given, in whole seconds.
	Lifetime time.Duration
	// Report is the report that the lease rests on. The kernel's fence opens for the addresses as long as it lives.
	Report   Seq
	NotAfter Instant
}

// Arm tells the kernel's fence of the report that the Sends after it in the same list carry, before they are sent: it
// lives for TTL. The same transaction makes the fence open for addresses whose leases were renewed since, each as long as
// the report lives that its lease rests on. If that fails, the report is not sent.
type Arm struct {
	Seq  Seq
	TTL  time.Duration
	Open []Opening
	// Leads says that this node leads, or is about to, so that the leases of others wait for what it says.
	Leads bool
}

// Opening is a group for which the fence is open while a report lives, unless this epoch of it was given up since the Arm was
// asked for: an Arm may wait long before it is carried out, and an Unbind that was asked for later does not wait for it.
type Opening struct {
	Group     GroupName
	Epoch     Epoch
	Addresses []netip.Prefix
	Report    Seq
}

// Extend renews the kernel's lifetime of addresses that are bound. It must not add an address that is gone.
type Extend struct {
	Group    GroupName
	Epoch    Epoch
	Spec     GroupSpec
	Lifetime time.Duration
	NotAfter Instant
}

// Prolong lets the claims of an epoch that are on their way go on until NotAfter, because the lease was renewed meanwhile:
// many addresses take the kernel longer than what was left of the lease when they were claimed. It shortens nothing.
type Prolong struct {
	Group GroupName
	Epoch Epoch
	// Report is the report that the renewed lease rests on, by which a Bind on its way opens the kernel's fence. The one that it
	// came with may be over by then.
	Report   Seq
	NotAfter Instant
}

// Unbind removes the addresses of a group and reads back that they are gone. The answer is an UnbindDone. It is tried
// again by the machine until it has succeeded.
type Unbind struct {
	Group GroupName
	Epoch Epoch
	Spec  GroupSpec
}

// Probe asks the link, by ARP probe or neighbour solicitation, whether somebody answers for the addresses already. The
// answer is a ProbeDone after For at the latest.
type Probe struct {
	Group    GroupName
	Epoch    Epoch
	Spec     GroupSpec
	For      time.Duration
	NotAfter Instant
}

// Announce sends one round of gratuitous ARP (request and reply form) or unsolicited neighbour advertisements for all
// addresses of the group.
type Announce struct {
	Group    GroupName
	Epoch    Epoch
	Spec     GroupSpec
	NotAfter Instant
	// Round counts the rounds of this epoch from 1; 0 is a defence against a foreign claim.
	Round int
}

// Send sends a datagram to a peer.
type Send struct {
	To  NodeName
	Msg Message
}

// Propose hands a command to Raft. It is dropped when NotAfter has passed; zero means never. The answer is a Committed
// with the same command ID, or a ProposalFailed.
type Propose struct {
	Command  Command
	NotAfter Instant
}

// TransferLeadership asks Raft to make another voter the leader.
type TransferLeadership struct{ To NodeName }

// SetTimer asks for a Tick at the given instant, in place of the one asked for before.
type SetTimer struct{ At Instant }

// Answer ends an operator's request. Refused is empty on success.
type Answer struct {
	Ticket  uint64
	Refused string
}

// Stopped says that nothing is bound or held any more after ShutdownAsked: the process may end.
type Stopped struct{}

// Note is a line for the log: something happened to the ownership of a group, or an alarm was raised or cleared.
type Note struct {
	Alarm  bool
	Group  GroupName
	Epoch  Epoch
	Text   string
	Reason string
}

func (Bind) action()               {}
func (Arm) action()                {}
func (Extend) action()             {}
func (Prolong) action()            {}
func (Unbind) action()             {}
func (Probe) action()              {}
func (Announce) action()           {}
func (Send) action()               {}
func (Propose) action()            {}
func (TransferLeadership) action() {}
func (SetTimer) action()           {}
func (Answer) action()             {}
func (Stopped) action()            {}
func (Note) action()               {}
