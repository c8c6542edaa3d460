package core

import (
	"net/netip"
	"time"
)

// The acts on the local MySQL server, which policy promote needs, and some of them MHA's advice. Like all actions they are
// carried out in the order of the list. Those that claim (PromoteServer) carry NotAfter, and so does the statement itself,
// because the server or this process may stand still just before it runs. Those that give up (DemoteServer) never expire.
// The others (FreezeServer, CatchUpServer, FollowServer) neither claim nor give up: none of them makes a server writable.

// FreezeServer stops the receiver of the local replica, so that what it has received does not change any more while the
// arbiter chooses. The answer is a ServerFrozen.
type FreezeServer struct {
	Group GroupName
	// Epoch is the epoch whose end is being dealt with.
	Epoch Epoch
	// Round is the arbiter's number of this choice; the answer carries it back.
	Round uint64
}

// ServerFrozen is the result of a FreezeServer.
type ServerFrozen struct {
	Group GroupName
	Epoch Epoch
	Round uint64
	// Executed is the whole executed set and Received what was received besides, in the server's own notation.
	Executed, Received string
	Err                string
}

// PromoteServer makes the local server the writable one: it applies all that it has received within ApplyWithin, stops
// replicating and becomes writable, the last unless NotAfter has passed. The answer is a ServerPromoted.
type PromoteServer struct {
	Group       GroupName
	Epoch       Epoch
	ApplyWithin time.Duration
	NotAfter    Instant
	// Keep clears read_only and does nothing else: replication is MHA's work. The server stays read-only while it applies what
	// it has received.
	Keep bool
	// Undo is a Keep that takes back a DemoteServer: the server stays read-only if it replicates, or if one of MHA's locks is held
	// on it.
	Undo bool
}

// ServerPromoted is the result of a PromoteServer. With Err set the server is read-only, or is to be made so.
type ServerPromoted struct {
	Group GroupName
	Epoch Epoch
	// Executed is the executed set at the moment before the server became writable.
	Executed string
	Err      string
	// Late is set when it did not become writable because the time for that was over.
	Late bool
}

// DemoteServer makes the local server read-only, with super_read_only where that exists, and ends its transactions: those
// that run are given Drain to end by themselves, none if it is zero. The answer is a ServerDemoted. It is tried again by
// the machine until it has succeeded.
type DemoteServer struct {
	Group GroupName
	Epoch Epoch
	Drain time.Duration
}

// ServerDemoted is the result of a DemoteServer. Err is empty only if the server was read back as read-only.
type ServerDemoted struct {
	Group GroupName
	Epoch Epoch
	// Executed is the whole executed set after the last transaction has ended.
	Executed string
	Err      string
}

// CatchUpServer waits until the local replica has applied Executed, for Within at the most. The answer is a
// ServerCaughtUp.
type CatchUpServer struct {
	Group GroupName
	Epoch Epoch
	// Move is the switchover for which that is; the answer carries it back. One epoch can see several, each with a larger set.
	Move     Index
	Executed string
	Within   time.Duration
}

// ServerCaughtUp is the result of a CatchUpServer. Err is empty when the replica has all of the set.
type ServerCaughtUp struct {
	Group GroupName
	Epoch Epoch
	Move  Index
	Err   string
}

// FollowServer lets the local server replicate from the owner's by GTID, read-only. It first compares the executed sets:
// a server with transactions that the source lacks is not touched. The answer is a ServerFollows.
type FollowServer struct {
	Group GroupName
	Epoch Epoch
	// Source is where the owner's server is reached by its peers.
	Source netip.AddrPort
	// SourceExecuted is the owner's executed set, read after it became writable.
	SourceExecuted string
}

// ServerFollows is the result of a FollowServer.
type ServerFollows struct {
	Group GroupName
	Epoch Epoch
	// Errant is what this server has executed and its source has not; then it was left alone.
	Errant string
	Err    string
}

func (FreezeServer) action()  {}
func (PromoteServer) action() {}
func (DemoteServer) action()  {}
func (CatchUpServer) action() {}
func (FollowServer) action()  {}

func (ServerFrozen) event()   {}
func (ServerPromoted) event() {}
func (ServerDemoted) event()  {}
func (ServerCaughtUp) event() {}
func (ServerFollows) event()  {}
