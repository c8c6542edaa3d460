package core

import (
	"net"
	"net/netip"
)

// Event is something that has happened, told to the machine through Step.
type Event interface{ event() }

// Tick says that time has passed. It is the event of the agent's timer.
type Tick struct{}

// Received is a datagram from a peer, after its authenticity was checked.
type Received struct {
	From NodeName
	Msg  Message
	// Term is this node's own current Raft term, read after the datagram arrived; 0 while Raft does not run.
	Term Term
}

// Committed says that a log entry was applied to the ledger.
type Committed struct {
	Index   Index
	Term    Term // the term of the entry, Log.Term
	Command Command
	// Outcomes has one outcome for each operation of the command.
	Outcomes []Outcome
	View     View
}

// Restored says that the ledger was replaced by a snapshot.
type Restored struct{ View View }

// ProposalFailed says that a proposal of ours did not come to an end that we know. With Known set it certainly was not
// and never will be committed; otherwise it may still be.
type ProposalFailed struct {
	ID     uint64
	Known  bool
	Reason string
}

// Elected says that Raft made this node the leader.
type Elected struct{ Term Term }

// Deposed says that this node is not the Raft leader any more.
type Deposed struct{}

// LeaderSeen is Raft's hint who leads; empty if nobody is known to.
type LeaderSeen struct{ Leader NodeName }

// VotersChanged lists the nodes that vote in Raft's latest configuration, this node among them if it votes.
type VotersChanged struct{ Voters []NodeName }

// HealthChanged is the detector's word on the local server.
type HealthChanged struct{ Health Health }

// LinkChanged says whether an interface of ours can carry frames.
type LinkChanged struct {
	Interface string
	Up        bool
	// Missing is set when there is no such interface.
	Missing bool
}

// AddressesSeen says what addresses of groups are like on this node, all as read back from the kernel at one time. Those
// that are not named are as they were.
type AddressesSeen []AddressSeen

// AddressSeen says whether an address of a group is bound on this node.
type AddressSeen struct {
	Address netip.Addr
	Present bool
	// Ours is set when the address carries Remora's mark.
	Ours bool
}

// ForeignClaim says that somebody on the link claims an address that this node answers for.
type ForeignClaim struct {
	Address netip.Addr
	MAC     net.HardwareAddr
}

// BindDone is the result of a Bind.
type BindDone struct {
	Group GroupName
	Epoch Epoch
	// Err is empty when all addresses are bound and were read back.
	Err string
	// Late is set when the claim was dropped because its time was over.
	Late bool
}

// ExtendDone is the result of an Extend.
type ExtendDone struct {
	Group GroupName
	Epoch Epoch
	Err   string
	// Absent is set when an address was gone, so that there was nothing to extend.
	Absent bool
}

// UnbindDone is the result of an Unbind. Gone is set only when the addresses were read back and are absent.
type UnbindDone struct {
	Group GroupName
	Epoch Epoch
	Gone  bool
	Err   string
}

// ProbeDone is the result of a Probe: Conflict is the MAC address that answered for one of the addresses.
type ProbeDone struct {
	Group    GroupName
	Epoch    Epoch
	Conflict net.HardwareAddr
	Err      string
}

// FenceLost says that somebody else removed the kernel's fence. It was put back closed, or is being put back.
type FenceLost struct{ Reason string }

// ClockJumped says that the machine was suspended: the lease clock went on, and the kernel's timers, which hold the leases
// too, stood still. A process that alone stood still (SIGSTOP, a debugger) needs no event, for the leases that it may have
// missed the end of are over by the clock that it reads when it goes on.
type ClockJumped struct{ Reason string }

// ShutdownAsked starts the ordered end: unbind, release, hand leadership on.
type ShutdownAsked struct{}

// MoveAsked is an operator's wish to bring a group to a node.
type MoveAsked struct {
	Ticket uint64
	Group  GroupName
	To     NodeName
	Reason string
}

// PauseAsked is an operator's wish to freeze or thaw a group or all addresses of a pool; an empty group means all.
type PauseAsked struct {
	Ticket uint64
	Group  GroupName
	On     bool
	Reason string
}

// ConfigOffered is the configuration of this node's file.
type ConfigOffered struct {
	Config Config
	// Interfaces names the interfaces of groups on this node, where they may differ from the group's; that of "" is for groups
	// which the file does not have.
	Interfaces map[GroupName]string
}

// PromoteAsked is an operator's wish that a node be promoted for a group that nobody owns. With AcceptLoss transactions
// that it lacks are given up.
type PromoteAsked struct {
	Ticket     uint64
	Group      GroupName
	To         NodeName
	AcceptLoss bool
	Reason     string
}

// RejoinAsked is an operator's word that this node's server, which was set aside, may be looked at again.
type RejoinAsked struct{ Ticket uint64 }

func (PromoteAsked) event()   {}
func (RejoinAsked) event()    {}
func (Tick) event()           {}
func (Received) event()       {}
func (Committed) event()      {}
func (Restored) event()       {}
func (ProposalFailed) event() {}
func (Elected) event()        {}
func (Deposed) event()        {}
func (LeaderSeen) event()     {}
func (VotersChanged) event()  {}
func (HealthChanged) event()  {}
func (LinkChanged) event()    {}
func (AddressesSeen) event()  {}
func (ForeignClaim) event()   {}
func (BindDone) event()       {}
func (ExtendDone) event()     {}
func (UnbindDone) event()     {}
func (ProbeDone) event()      {}
func (FenceLost) event()      {}
func (ClockJumped) event()    {}
func (ShutdownAsked) event()  {}
func (MoveAsked) event()      {}
func (PauseAsked) event()     {}
func (ConfigOffered) event()  {}
