package agent

import (
	"context"
	"net"

	"github.com/remora-ha/remora/core"
)

// Binder puts addresses into the kernel and takes them out.
type Binder interface {
	// Bind returns nil when all addresses are bound and were read back. It does nothing once a.NotAfter has passed.
	Bind(ctx context.Context, a core.Bind) error
	// Extend renews the kernel's lifetimes. It returns an error for which Absent is true when an address is gone, and
	// never brings one back.
	Extend(ctx context.Context, a core.Extend) error
	// Prolong moves the NotAfter of the binder's and the announcer's claims of an epoch that are on their way. It does not wait.
	Prolong(a core.Prolong)
	// Unbind returns nil only when all addresses were read back and are gone. It waits for no Bind or Extend, and need not
	// heed ctx: giving up is not called off.
	Unbind(ctx context.Context, a core.Unbind) error
	// Arm tells the kernel's fence of a report and opens it for what was renewed, and for nothing for whose epoch Unbind has been
	// called, before or meanwhile. It returns nil if there is no fence.
	Arm(ctx context.Context, a core.Arm) error
	// Probe returns the hardware address of somebody on the link who answers for one of the addresses, or nil.
	Probe(ctx context.Context, a core.Probe) (net.HardwareAddr, error)
	// Late and Absent classify the errors of the methods above.
	Late(error) bool
	Absent(error) bool
}

// Announcer sends one round of announcements. It sends nothing once a.NotAfter has passed.
type Announcer interface {
	Announce(ctx context.Context, a core.Announce) error
}

// Consensus is what the agent needs of Raft. None of its methods waits.
type Consensus interface {
	// Send sends a datagram to another node; it may be lost.
	Send(to core.NodeName, m core.Message)
	// Propose hands a command to Raft unless notAfter says that it is too late. The outcome is an event.
	Propose(c core.Command, notAfter func() bool)
	TransferLeadership(to core.NodeName)
	// Term is this node's own current Raft term, 0 while Raft does not run.
	Term() core.Term
}

// Server acts on the local MySQL server. Each method returns the event that the machine is told; a failure is in its Err.
type Server interface {
	Freeze(ctx context.Context, a core.FreezeServer) core.ServerFrozen
	// Promote leaves the server read-only once a.NotAfter has passed, also if the server itself stands still meanwhile.
	Promote(ctx context.Context, a core.PromoteServer) core.ServerPromoted
	// Demote waits for no other method: it has a connection of its own.
	Demote(ctx context.Context, a core.DemoteServer) core.ServerDemoted
	CatchUp(ctx context.Context, a core.CatchUpServer) core.ServerCaughtUp
	Follow(ctx context.Context, a core.FollowServer) core.ServerFollows
}
