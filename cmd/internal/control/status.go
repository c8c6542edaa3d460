package control

import "time"

// Schema is the version of Status as JSON. It grows with every change that could break a reader; new fields do not.
const Schema = 1

// Status is the cluster as one node sees it. docs/status.md explains every field.
type Status struct {
	Schema  int       `json:"schema"`
	Cluster string    `json:"cluster"`
	Node    string    `json:"node"`
	Time    time.Time `json:"time"`
	Version string    `json:"version"`
	DryRun  bool      `json:"dry_run"`
	// Quorum says whether this node is in touch with a majority under a leader.
	Quorum bool   `json:"quorum"`
	Leader string `json:"leader"`
	// ConfigVersion is the ledger's.
	ConfigVersion uint64    `json:"config_version"`
	Timing        Timing    `json:"timing"`
	Groups        []Group   `json:"groups"`
	Nodes         []Node    `json:"nodes"`
	Problems      []Problem `json:"problems"`
	// Process is about the answering daemon itself.
	Process Process `json:"process"`
}

// Process is what a daemon says of its own process.
type Process struct {
	// Scheduling is its class and priority: rr:1, fifo:1 or nice:-15.
	Scheduling string `json:"scheduling"`
	// LockedMemory is off, touched or all.
	LockedMemory string `json:"locked_memory"`
	// KernelLease is by what this node's kernel holds leases: nftables, lifetime, or none where nothing is ever bound.
	KernelLease string `json:"kernel_lease"`
	// OldConnections is by what the connections to an address that has left this node are ended here: SOCK_DESTROY by the kernel,
	// KILL by the server, none, or unknown. OldConnectionsWhy says why it is not the kernel, and is
	// empty on a node that never binds.
	OldConnections    string `json:"old_connections"`
	OldConnectionsWhy string `json:"old_connections_why"`
	// Watchdog is the configured mode of the watchdog device, WatchdogArmed whether it runs now.
	Watchdog      string `json:"watchdog"`
	WatchdogArmed bool   `json:"watchdog_armed"`
	// CertificateEnds is when this node's certificate ends, or its authority's if that is earlier.
	CertificateEnds time.Time `json:"certificate_ends"`
	// GCPauseMaxUS bounds the longest stop of the program by a garbage collection since its start, in microseconds; GCPauses
	// counts the stops.
	GCPauseMaxUS int64  `json:"gc_pause_max_us"`
	GCPauses     uint64 `json:"gc_pauses"`
	// AppendP99US is the time, in microseconds, that all but one in a hundred of the last 256 writes to Raft's log took at most.
	AppendP99US int64 `json:"append_p99_us"`
}

// Timing shows the durations that decide how long an address can be without an owner.
type Timing struct {
	Profile     string `json:"profile"`
	HeartbeatMS int64  `json:"heartbeat_ms"`
	TTLMS       int64  `json:"ttl_ms"`
	MarginMS    int64  `json:"margin_ms"`
}

// Group is a group as the answering node sees it.
type Group struct {
	Name   string `json:"name"`
	Role   string `json:"role"`
	Policy string `json:"policy"` // empty in a group of role reader
	// Pool is the reader group of the configuration of which this group is one address.
	Pool string `json:"pool,omitempty"`
	// Owner is empty when nobody holds the group.
	Owner string `json:"owner"`
	Epoch uint64 `json:"epoch"`
	// Since is when the ownership changed last; null if it never did.
	Since *time.Time `json:"since"`
	// LeaseLeftMS is known on the owner only and null elsewhere.
	LeaseLeftMS *int64   `json:"lease_left_ms"`
	Addresses   []string `json:"addresses"`
	Interface   string   `json:"interface"`
	// Bound lists those addresses that are bound on the answering node, BoundHere says whether it is all of them.
	Bound     []string `json:"bound"`
	BoundHere bool     `json:"bound_here"`
	// Phase is the answering node's own holding: none, claiming, serving or yielding.
	Phase  string `json:"phase"`
	Paused bool   `json:"paused"`
	// MovingTo is the target of a switchover that is under way. It may be the owner already, as long as the one before has to give
	// the group up.
	MovingTo string `json:"moving_to"`
	// Reason says why the ownership changed last.
	Reason string `json:"reason"`
	// Conflicts counts the claims of strangers to the group's addresses that this node has seen since it started.
	// LastConflictMS is the age of the last one, null without any; Contested says whether it is a recent one.
	Conflicts      int    `json:"conflicts"`
	LastConflictMS *int64 `json:"last_conflict_ms"`
	Contested      bool   `json:"contested"`
	// Clients is the number of connections to the group's addresses as the owner has counted them last; null if that is not
	// known here.
	Clients *int `json:"clients"`
}

// Node is a node as the answering node sees it.
type Node struct {
	Name      string `json:"name"`
	Address   string `json:"address"`
	Priority  int    `json:"priority"`
	Witness   bool   `json:"witness"`
	Voter     bool   `json:"voter"`
	Leader    bool   `json:"leader"`
	Reachable bool   `json:"reachable"`
	// LastHeardMS is the age of the node's last report; null if there was none.
	LastHeardMS *int64 `json:"last_heard_ms"`
	Starting    bool   `json:"starting"`
	Leaving     bool   `json:"leaving"`
	DryRun      bool   `json:"dry_run"`
	// Unfenced says that its kernel holds leases by address lifetimes alone.
	Unfenced bool `json:"unfenced"`
	// SetAside says why policy promote leaves the node's server alone: what it has that the owner lacks.
	SetAside      string `json:"set_aside,omitempty"`
	Version       string `json:"version"`
	ConfigVersion uint64 `json:"config_version"`
	// MySQL is null on a witness and on a node that was never heard.
	MySQL *MySQL `json:"mysql"`
	// Unfit says for each group that the node could not serve now, why.
	Unfit map[string]string `json:"unfit,omitempty"`
}

// MySQL is a node's word on its own server.
type MySQL struct {
	Health      string `json:"health"` // healthy, failed or unknown
	Reason      string `json:"reason"`
	Role        string `json:"role"`     // primary, replica, read-only or unknown
	Writable    string `json:"writable"` // yes, no or unknown
	Source      string `json:"source"`
	Replicating string `json:"replicating"` // yes, no or unknown
	// MHAWatches and MHAActs say whether MHA's monitor lock and its failover lock are held on the server.
	MHAWatches string `json:"mha_watches"` // yes, no or unknown
	MHAActs    string `json:"mha_acts"`    // yes, no or unknown
	// SemiSync is how commits wait for replicas; null unless the server is writable and has that switched on.
	SemiSync *SemiSync `json:"semi_sync"`
	GTID     string    `json:"gtid"`
	// LagMS is the server's own figure, MeasuredLagMS the one by what the primary told. Each is null when unknown.
	LagMS         *int64   `json:"lag_ms"`
	MeasuredLagMS *int64   `json:"measured_lag_ms"`
	Version       string   `json:"version"`
	Listens       []string `json:"listens"`
	Alarms        []string `json:"alarms"`
}

// SemiSync is semi-synchronous replication as a server that takes writes has it.
type SemiSync struct {
	// Waits is false while the server has given up to wait, after a timeout.
	Waits bool `json:"waits"`
	// AfterSync says that a commit waits before others see it.
	AfterSync bool `json:"after_sync"`
	// WaitsAlone says that a commit waits also while nobody replicates.
	WaitsAlone bool `json:"waits_alone"`
	// Acks is how many replicas must acknowledge, Replicas how many are connected that do so.
	Acks      uint32 `json:"acks"`
	Replicas  uint32 `json:"replicas"`
	TimeoutMS int64  `json:"timeout_ms"`
}

// Problem is something that is not as it should be, in a sentence that says why.
type Problem struct {
	Subject string `json:"subject"`
	Text    string `json:"text"`
}

// HistoryEntry is a line of the cluster's history.
type HistoryEntry struct {
	// Index is the entry's position in the replicated log, the same on every node.
	Index  uint64    `json:"index"`
	Time   time.Time `json:"time"`
	Kind   string    `json:"kind"`
	Group  string    `json:"group"`
	Epoch  uint64    `json:"epoch"`
	Node   string    `json:"node"`
	From   string    `json:"from"`
	Reason string    `json:"reason"`
}
