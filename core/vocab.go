package core

import (
	"cmp"
	"net/netip"
	"time"
)

// NodeName names a node of the cluster, as its [[node]] table in the configuration does.
type NodeName string

// GroupName names a group: a set of addresses that move together.
type GroupName string

// Epoch is the fencing token of one holding of a group. It grows by one with every grant and is never used twice.
// Zero means that the group was never granted.
type Epoch uint64

// Term is a Raft term.
type Term uint64

// Index is the position of an entry in the Raft log.
type Index uint64

// Incarnation is a random number that names one process of a node. What was promised to one process means nothing to
// the next one.
type Incarnation uint64

// Seq numbers the reports of one incarnation, from 1.
type Seq uint64

// Instant is a reading of a node's lease clock in nanoseconds. In production that clock is CLOCK_BOOTTIME, which goes
// on while the machine sleeps. Readings of two nodes have nothing to do with each other.
type Instant int64

// Add returns the instant d later than i.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub returns how much later i is than j.
func (i Instant) Sub(j Instant) time.Duration { return time.Duration(i - j) }

// Before reports whether i is earlier than j.
func (i Instant) Before(j Instant) bool { return i < j }

// Role says what the addresses of a group are for.
type Role string

// The roles of a group.
const (
	Writer Role = "writer"
	Reader Role = "reader"
)

// Policy says which node may serve a writer group.
type Policy string

// The policies of a writer group.
const (
	// AnyHealthy lets any healthy server serve: dual primaries, where the address decides who is written to.
	AnyHealthy Policy = "any"
	// Follow lets only a server serve that somebody else has made writable: MHA, orchestrator, Group Replication, a person.
	Follow Policy = "follow"
	// Promote lets Remora itself make the successor writable.
	Promote Policy = "promote"
)

// GroupSpec is what the configuration says of a group. It is kept in the ledger, so all nodes have the same one.
type GroupSpec struct {
	Name GroupName `json:"name"`
	Role Role      `json:"role"`
	// Policy is empty in a group of role reader.
	Policy    Policy         `json:"policy"`
	Addresses []netip.Prefix `json:"addresses"`
	// Interface is the interface that carries the addresses, unless the node's own table names another.
	Interface string `json:"interface"`
	// Preempt lets a node of higher priority take the group from a healthy owner. Under policy promote it has no effect:
	// a switchover stops writes, so somebody has to want it.
	Preempt bool `json:"preempt,omitempty"`
	// KeepUnwritable is for policy follow: how long an owner whose server has become read-only keeps the addresses while no
	// other node could take them. With 0 they are released at once.
	KeepUnwritable Millis `json:"keep_unwritable_ms,omitempty"`
	// Promotion is what policy promote needs to know.
	Promotion Promotion `json:"promotion,omitzero"`
	// Pool is what the configuration calls the set of reader addresses of which this group is one. The addresses of a pool are
	// a group each, so that each has an owner and an epoch of its own, and are spread over the nodes.
	Pool GroupName `json:"pool,omitempty"`
	// Reading is what a group of role reader asks for.
	Reading Reading `json:"reading,omitzero"`
}

// Promotion holds the limits of policy promote. A duration of zero means its default.
type Promotion struct {
	// MaxLost is how many transactions that the old owner is known to have executed the new one may lack; negative means
	// any number.
	MaxLost int64 `json:"max_lost_transactions,omitempty"`
	// MaxLag is how far behind a replica may be by its own figure to be chosen, 0 for any.
	MaxLag Millis `json:"max_lag_ms,omitempty"`
	// ApplyWithin bounds the time in which the chosen replica must apply what it has received, 30 s by default.
	ApplyWithin Millis `json:"apply_within_ms,omitempty"`
	// Drain is how long transactions may go on in a planned switchover before they are ended, 1 s by default.
	Drain Millis `json:"drain_ms,omitempty"`
	// CatchUp bounds the time in which the target of a planned switchover must have applied everything, 5 s by default.
	CatchUp Millis `json:"catch_up_ms,omitempty"`
}

func (p Promotion) applyWithin() time.Duration {
	return cmp.Or(p.ApplyWithin.Duration(), 30*time.Second)
}

// DrainFor is Drain or its default.
func (p Promotion) DrainFor() time.Duration { return cmp.Or(p.Drain.Duration(), time.Second) }

func (p Promotion) catchUp() time.Duration { return cmp.Or(p.CatchUp.Duration(), 5*time.Second) }

// NodeSpec is what the configuration says of a node. It is kept in the ledger.
type NodeSpec struct {
	Name NodeName `json:"name"`
	// Address is where the node's peers reach it: TCP for Raft and control, UDP for reports.
	Address netip.AddrPort `json:"address"`
	// Witness marks a node that votes and never owns.
	Witness bool `json:"witness,omitempty"`
	// Priority ranks nodes that are equally good otherwise; the higher is preferred.
	Priority int `json:"priority,omitempty"`
	// MySQL is where the other members' servers reach this one; the host of Address and port 3306 if it is not set.
	MySQL netip.AddrPort `json:"mysql,omitzero"`
}

// Server returns where the node's MySQL is reached by the other members.
func (n NodeSpec) Server() netip.AddrPort {
	if n.MySQL.IsValid() {
		return n.MySQL
	}
	return netip.AddrPortFrom(n.Address.Addr(), 3306)
}

// Config is the part of the configuration that all nodes must agree on. It lives in the ledger; a file only proposes it.
type Config struct {
	// Version orders configurations. A file takes effect when its version is higher than the ledger's.
	Version uint64      `json:"version"`
	Cluster string      `json:"cluster"`
	TTL     Millis      `json:"ttl_ms"`
	Nodes   []NodeSpec  `json:"nodes"`
	Groups  []GroupSpec `json:"groups"`
}

// Millis is a duration that is written as whole milliseconds in the ledger.
type Millis int64

// Duration returns m as a time.Duration.
func (m Millis) Duration() time.Duration { return time.Duration(m) * time.Millisecond }

// Tri is an answer that may be missing. An unknown is not an absence.
type Tri uint8

// The values of a Tri.
const (
	Unknown Tri = iota
	Yes
	No
)

// String returns "unknown", "yes" or "no".
func (t Tri) String() string {
	switch t {
	case Yes:
		return "yes"
	case No:
		return "no"
	default:
		return "unknown"
	}
}

// HealthState is the detector's verdict on the local server.
type HealthState uint8

// The verdicts.
const (
	// HealthUnknown means that the detector has not decided yet.
	HealthUnknown HealthState = iota
	// Healthy means that the server answers queries.
	Healthy
	// Failed means that the server is dead, refuses or does not answer in time.
	Failed
)

// String returns the state in one lower-case word.
func (s HealthState) String() string {
	switch s {
	case Healthy:
		return "healthy"
	case Failed:
		return "failed"
	default:
		return "unknown"
	}
}

// Health is what a node knows of its own server.
type Health struct {
	State HealthState
	// Reason says in a few words why the state is what it is.
	Reason string
	// Writable is Yes with read_only=OFF.
	Writable Tri
	// Source is the host:port that the server replicates from, empty if it replicates from nobody.
	Source string
	// Replicating is Yes when both replication threads run.
	Replicating Tri
	// Lag is the server's own figure of how far it is behind; negative if unknown.
	Lag time.Duration
	// Measured is how far it is behind what the primary had told of itself, in whole seconds; negative if unknown. The node itself
	// reckons it, and no detector tells it.
	Measured time.Duration
	// GTID is the executed set or the current position, in the server's own notation; it may be cut at MaxGTID bytes.
	GTID string
	// Executed is the whole executed set, read together with Writable. It is empty if unknown or longer than MaxSet.
	Executed string
	// MHAWatches is Yes while somebody holds MHA's monitor lock on the server: a manager watches it as the primary.
	MHAWatches Tri
	// MHAActs is Yes while somebody holds MHA's failover lock on the server, as MHA does on each living replica from before
	// its first step of a failover or a planned change until its last.
	MHAActs Tri
	// SemiSync is how the server's commits wait for its replicas.
	SemiSync SemiSync
	// Version is the server's version string.
	Version string
	// Listens lists the addresses on which the server accepts TCP connections; an unspecified address is the wildcard.
	// It is nil as long as that is unknown.
	Listens []netip.Addr
	// Alarms lists what an operator should look at although the verdict does not depend on it: a wrong password, say.
	Alarms []string
}

// SemiSync is how a server's commits wait for its replicas (semi-synchronous replication). It is the zero value where that
// is unknown, switched off or of no matter, because the server is read-only.
type SemiSync struct {
	// Waits is set while commits wait: it is switched on, and the server has not given it up after a timeout.
	Waits bool
	// AfterSync says that a commit waits before others can see it (wait point AFTER_SYNC).
	AfterSync bool
	// Alone says that a commit waits also while nobody replicates.
	Alone bool
	// Acks is how many replicas must have acknowledged, Replicas how many are connected that acknowledge.
	Acks, Replicas uint32
	// Timeout is how long a commit waits before the server gives it up.
	Timeout time.Duration
}

// Bounds on what a report may carry, in bytes; longer texts are cut.
const (
	MaxReason = 160
	MaxGTID   = 256
	MaxAlarms = 4
	// MaxSet bounds a GTID set in a datagram. Sets are never cut: half a set is a wrong one.
	MaxSet = 448
)
