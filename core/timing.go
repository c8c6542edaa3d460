package core

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Timing holds every duration that the safety and the speed of a takeover rest on. All nodes of a cluster use the same
// profile; the lease's length itself is in the ledger.
type Timing struct {
	// Heartbeat is the interval between two reports of a node.
	Heartbeat time.Duration
	// TTL is the length of a lease, counted from the moment at which the report that asks for it was sent.
	TTL time.Duration
	// Unbind is the time that a holder keeps in hand at the end of its lease for unbinding.
	Unbind time.Duration
	// RaftHeartbeat is the time without a leader's heartbeat after which a follower may stand for election.
	RaftHeartbeat time.Duration
	// RaftElection is the time after which an election without a winner starts again.
	RaftElection time.Duration
	// Probe is the interval between two probes of the local server.
	Probe time.Duration
	// ProbeTimeout is the time in which the server must answer a question of a probe. It has that twice where the machine had no
	// processor for it, or for this process.
	ProbeTimeout time.Duration
	// Fall is the number of probes in a row that must fail before a server counts as failed, Rise the number that must
	// succeed before it counts as healthy again.
	Fall, Rise int
	// CoolDown is how long a node that has failed is passed over while another eligible node exists. Among nodes that all have, the
	// one that failed longest ago comes first.
	CoolDown time.Duration
}

// MaxTTL is the longest lease that a configuration may ask for.
const MaxTTL = time.Minute

// The kernel's part of the margin: two ticks of the slowest usual timer (HZ=250).
const kernelTicks = 2 * 4 * time.Millisecond

// MarginConstant is the fixed part of the margin: the time for which the holder's loop and a system call may be delayed
// between the look at the clock and the effect.
const MarginConstant = 5 * time.Millisecond

// Margin returns how much longer than a lease of length ttl the arbiter waits before it grants to another node: 1/49 for
// two clocks that each run up to 1 % wrong (1.01/0.99 is 2.02 % more than 1), two kernel ticks and a constant.
func Margin(ttl time.Duration) time.Duration { return ttl/49 + kernelTicks + MarginConstant }

// Profiles returns the names of the profiles, the default first.
func Profiles() []string { return []string{"lan", "fast", "wan"} }

// ProfileTiming returns the start values of a profile.
func ProfileTiming(name string) (Timing, error) {
	const ms = time.Millisecond
	switch name {
	case "lan":
		return Timing{Heartbeat: 60 * ms, TTL: 300 * ms, Unbind: 20 * ms, RaftHeartbeat: 70 * ms, RaftElection: 70 * ms,
			Probe: 100 * ms, ProbeTimeout: 100 * ms, Fall: 2, Rise: 2, CoolDown: 10 * time.Second}, nil
	case "fast":
		return Timing{Heartbeat: 14 * ms, TTL: 45 * ms, Unbind: 3 * ms, RaftHeartbeat: 17 * ms, RaftElection: 17 * ms,
			Probe: 44 * ms, ProbeTimeout: 38 * ms, Fall: 2, Rise: 2, CoolDown: 10 * time.Second}, nil
	case "wan":
		return Timing{Heartbeat: time.Second, TTL: 4 * time.Second, Unbind: 100 * ms, RaftHeartbeat: 500 * ms,
			RaftElection: 500 * ms, Probe: time.Second, ProbeTimeout: time.Second, Fall: 3, Rise: 2,
			CoolDown: 30 * time.Second}, nil
	}
	return Timing{}, fmt.Errorf("unknown profile %q: use one of %s", name, strings.Join(Profiles(), ", "))
}

// Problem is something wrong with a setting.
type Problem struct {
	Key  string // the key of the [timing] table
	Text string // what is wrong, with both values, and what to do
}

// Check returns every relation between the durations that does not hold.
func (t Timing) Check() []Problem {
	var ps []Problem
	bad := func(key, format string, args ...any) {
		ps = append(ps, Problem{Key: key, Text: fmt.Sprintf(format, args...)})
	}
	positive := []struct {
		key string
		d   time.Duration
	}{{"heartbeat", t.Heartbeat}, {"ttl", t.TTL}, {"unbind", t.Unbind}, {"raft_heartbeat", t.RaftHeartbeat},
		{"raft_election", t.RaftElection}, {"probe", t.Probe}, {"probe_timeout", t.ProbeTimeout}}
	for _, p := range positive {
		if p.d < time.Millisecond {
			bad(p.key, "%s is %v: it must be at least 1ms", p.key, p.d)
		}
	}
	if t.TTL%time.Millisecond != 0 {
		bad("ttl", "ttl is %v: it must be whole milliseconds", t.TTL)
	}
	if t.TTL < 3*t.Heartbeat+t.Unbind {
		bad("ttl", "ttl (%v) must be at least 3 x heartbeat (%v) + unbind (%v) = %v, so that two lost reports do not cost the lease",
			t.TTL, t.Heartbeat, t.Unbind, 3*t.Heartbeat+t.Unbind)
	}
	if t.TTL > MaxTTL {
		bad("ttl", "ttl (%v) must not be longer than 1m: so long would an address stay without an owner after a node's death", t.TTL)
	}
	const raftLeast = 5 * time.Millisecond
	if t.RaftHeartbeat < raftLeast {
		bad("raft_heartbeat", "raft_heartbeat (%v) must be at least %v", t.RaftHeartbeat, raftLeast)
	}
	if t.RaftElection < t.RaftHeartbeat {
		bad("raft_election", "raft_election (%v) must not be shorter than raft_heartbeat (%v)", t.RaftElection, t.RaftHeartbeat)
	}
	if t.Fall < 1 {
		bad("fall", "fall is %d: it must be at least 1", t.Fall)
	}
	if t.Rise < 1 {
		bad("rise", "rise is %d: it must be at least 1", t.Rise)
	}
	if t.CoolDown < 0 {
		bad("cool_down", "cool_down is %v: it must not be negative", t.CoolDown)
	}
	return slices.Clip(ps)
}

// SurvivesLeader reports whether the death of the Raft leader costs the groups of other nodes nothing, given a round
// trip time between nodes and the 99th percentile of an append to Raft's store. A follower stands one and a half heartbeat
// timeouts after the last heartbeat at the latest, for which another quarter is allowed; then come one election, with one
// that nobody wins allowed for, and about eight appends until the new leader can confirm leases. The two durations
// returned are what the lease leaves and what an election may need.
func (t Timing) SurvivesLeader(rtt, storeP99 time.Duration) (ok bool, left, needed time.Duration) {
	left = t.TTL - t.Unbind - t.Heartbeat - rtt
	needed = 7*t.RaftHeartbeat/4 + t.RaftElection + 8*storeP99
	return left >= needed, left, needed
}
