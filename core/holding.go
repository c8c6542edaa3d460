package core

import (
	"net/netip"
	"slices"
	"time"
)

// phase says how far this node is with a group that it holds.
type phase uint8

const (
	waiting   phase = iota + 1 // for the end of the holding before
	probing                    // asking the link whether the addresses are free
	promoting                  // the local server is to become writable
	binding                    // a Bind is on its way
	bound                      // bound, read back; announced in this epoch
	unbinding                  // an Unbind is on its way or due
	releasing                  // unbound and read back; the release is not known to be committed yet
)

// holding is one epoch of one group on this node. It is made by a grant and ends when the addresses are known to be
// gone and the ledger has moved on.
type holding struct {
	group GroupName
	epoch Epoch
	spec  GroupSpec
	phase phase
	// earlier: the grant is of an earlier process of this node. No lease of it outlasts the start-up wait.
	earlier bool
	// lease is the end of the lease: nothing of this epoch is answered for after it.
	lease Instant
	// rests is the report from whose sending the lease is counted.
	rests Seq
	// opened is the report by which the kernel's fence was told to open last.
	opened Seq
	// shut is the last report that died with the kernel's fence when that was lost, 0 if it was not: the fence opens again
	// by the ack of a later one.
	shut Seq
	// claims counts the Bind, Extend and Probe actions whose result has not come. While there is one, an unbind that was
	// read back proves nothing, because the claim may still take effect.
	claims    int
	unbindOut bool    // an Unbind is on its way
	clean     bool    // no claim was on its way when that Unbind was sent
	due       Instant // until when the Bind or Probe on its way must have ended
	retryAt   Instant // when an Unbind or a ReleaseRequest is due again
	tries     int     // attempts to unbind
	asked     int     // requests for the release
	proved    bool    // the addresses were bound, so the link was asked before
	why       string
	again     bool // an address was removed while a Bind was on its way
	extended  Instant
	kernelEnd Instant // until when the kernel was last told to keep the addresses
	busy      Instant // until when claims on their way are prolonged when the lease is
	announces int     // rounds sent of the plan
	nextRound Instant
	defended  Instant
	keptSince Instant // since when the server is read-only for which it was said that the group is kept

	// The rest is for policy promote, and in part for MHA's advice.
	stageFrom    Instant // since when the server is being made writable, or drained
	promoteBy    Instant // until when the server must be writable
	promotedAt   Instant
	unwritable   bool // the server is not, or not yet, made writable in this epoch
	seenWritable bool // the detector has seen that it was
	moving       Index
	draining     bool // a DemoteServer for the switchover is on its way
	drained      *ServerDemoted
	reporting    Instant
	heldBack     Instant // until when the release waits for the server
	stopping     uint64  // the operation for which the server is drained
	stopBy       Instant // until when that may take
	closed       string  // why the server was not made writable at the last attempt
}

// Intervals of the holder, none of which safety rests on.
const (
	// probeFor is how long the link is asked before the very first bind of a group.
	probeFor = 200 * time.Millisecond
	// defendInterval is RFC 5227's DEFEND_INTERVAL: an address is defended with one announcement in this time.
	defendInterval = 10 * time.Second
	// refreshEvery is how often an owner announces again, well below the usual 300 s of switches' tables.
	refreshEvery = 60 * time.Second
	// barFor is how long a node stays away from a group after somebody else answered for its address.
	barFor = 30 * time.Second
	// An Unbind that failed is tried again soon, then less often; a release is asked for until the ledger has it.
	unbindRetryMin = 2 * time.Millisecond
	unbindRetryMax = 100 * time.Millisecond
	releaseRetry   = 20 * time.Millisecond
	releaseRests   = 640 * time.Millisecond
	// claimEach is how long claims of so many addresses may go on, for each of them, beyond the lease that they began in.
	claimEach = time.Millisecond
	// stuckAfter is how many attempts to unbind may be needed before a node says that it can not serve the group.
	stuckAfter = 3
)

// announcePlan returns when, counted from the bind, an owner announces: at once; soon again for the frame that a busy
// receiver dropped; after more than a second for receivers that ignore a second change within one (Linux'
// net.ipv4.neigh.*.locktime); later for those that were away.
func announcePlan() [6]time.Duration {
	const ms = time.Millisecond
	return [6]time.Duration{0, 50 * ms, 250 * ms, 1100 * ms, 2500 * ms, 10000 * ms}
}

// reported is the phase as others are told it.
func (h *holding) reported() HoldPhase {
	switch h.phase {
	case bound:
		return Serving
	case waiting, probing, promoting, binding:
		return Claiming
	default:
		return Yielding
	}
}

// told is the holding as others are told it.
func (h *holding) told() Holding { return Holding{Group: h.group, Epoch: h.epoch, Phase: h.reported()} }

// claiming reports whether the holding still stands on its lease.
func (h *holding) claiming() bool { return h.phase <= bound }

// last returns the instant after which nothing may be claimed any more: the unbind budget before the end of the lease.
func (h *holding) last(t Timing) Instant { return h.lease.Add(-t.Unbind) }

// telling reports whether this node tells how its server was drained for a switchover: until the ledger has it.
func (h *holding) telling(mv *Move) bool {
	return mv != nil && mv.Began == h.moving && !mv.Drained && h.drained != nil
}

// wake returns when there is something to do for the holding by itself, given the switchover that is under way.
func (h *holding) wake(mv *Move, t Timing, every time.Duration) Instant {
	switch h.phase {
	case bound:
		at := min(h.last(t), h.nextRound, h.extended.Add(every))
		if h.telling(mv) {
			at = min(at, h.reporting)
		}
		return at
	case waiting:
		return h.last(t)
	case unbinding:
		if h.unbindOut {
			return 0
		}
		return h.retryAt
	case releasing:
		return max(h.retryAt, h.heldBack)
	default:
		return min(h.last(t), h.due)
	}
}

// overdue says what has not come to its end in time.
func (h *holding) overdue() string {
	if h.phase == promoting {
		return "the server did not become writable in time"
	}
	return "the kernel did not bind in time"
}

// kernelLifetime is the valid lifetime that an address is given: whole seconds are all the kernel takes, so it is the
// backstop of a lease and not the lease.
func kernelLifetime(ttl time.Duration) time.Duration {
	return ttl.Truncate(time.Second) + 2*time.Second
}

func extendEvery(ttl time.Duration) time.Duration { return kernelLifetime(ttl) / 4 }

func (h *holding) has(a netip.Addr) bool {
	return slices.ContainsFunc(h.spec.Addresses, func(p netip.Prefix) bool { return p.Addr() == a })
}
