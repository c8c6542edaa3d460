package consensus

import (
	"time"

	"github.com/remora-ha/remora/core"
)

// limits are the waits and bounds that follow from the timing profile.
type limits struct {
	rpc       time.Duration // a Raft call or a dial with its handshake
	handshake time.Duration // an incoming connection until it is authenticated
	silence   time.Duration // unacknowledged data on TCP
	rto       time.Duration // least TCP retransmission time, where the kernel can
	again     time.Duration // until a heartbeat without an answer is sent again
	hello     time.Duration // between two hellos on a session
	mute      time.Duration // without anything from a peer until it counts as unreachable, and between two looks for a start
	redial    time.Duration // first pause after a failed dial; it doubles up to redialMax
	redialMax time.Duration
	enqueue   time.Duration // for Raft's loop to take a proposal
	commit    time.Duration // Raft's CommitTimeout
	disk      time.Duration // for a write to the Raft log, until a leader lets another lead
}

const (
	// sessionLife bounds the age of a session, so that an expired certificate or a removed node does not last.
	sessionLife = time.Hour
	// maxStrangers bounds the unauthenticated connections from addresses that no peer has, maxKnown those from each
	// peer's address.
	maxStrangers = 32
	maxKnown     = 32
	// maxControl bounds the control streams of one peer.
	maxControl = 32
)

func limitsOf(t core.Timing) limits {
	hb := t.RaftHeartbeat
	l := limits{
		rpc:       bound(4*hb, 100*time.Millisecond, 2*time.Second),
		silence:   bound(10*hb, 500*time.Millisecond, 5*time.Second),
		rto:       bound(hb/2, 5*time.Millisecond, 200*time.Millisecond),
		again:     hb / 8,
		hello:     4 * time.Second,
		mute:      bound(20*hb, 400*time.Millisecond, 4*time.Second),
		redial:    bound(hb, 20*time.Millisecond, 200*time.Millisecond),
		redialMax: bound(10*hb, 200*time.Millisecond, 2*time.Second),
		enqueue:   bound(2*hb, 50*time.Millisecond, time.Second),
		commit:    bound(8*hb, 250*time.Millisecond, time.Second),
		disk:      bound(5*hb, 250*time.Millisecond, 5*time.Second),
	}
	l.handshake = max(l.rpc, time.Second)
	return l
}

func bound(d, low, high time.Duration) time.Duration { return min(max(d, low), high) }
