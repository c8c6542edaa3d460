package metrics

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/remora-ha/remora/cmd/internal/control"
	"github.com/remora-ha/remora/consensus"
)

// Snapshot is a daemon's status as it is at one moment.
type Snapshot struct {
	Status control.Status
	Raft   consensus.Status
}

// Source returns a daemon's status. It ends with its context.
type Source func(ctx context.Context) (Snapshot, error)

// Bounds on what scrapers cost the daemon's loop.
const (
	// fresh is how long a snapshot is shown before another is taken.
	fresh = time.Second
	// within is how long a busy loop is waited for.
	within = time.Second
)

// picture shows the newest snapshot.
type picture struct {
	source Source
	mu     sync.Mutex
	last   Snapshot
	taken  time.Time // zero if the last attempt failed
}

func newPicture(s Source) *picture { return &picture{source: s} }

// snapshot returns a status that is at most a second old.
func (p *picture) snapshot() (Snapshot, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.taken.IsZero() && time.Since(p.taken) < fresh {
		return p.last, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	s, err := p.source(ctx)
	if err != nil {
		p.taken = time.Time{}
		return Snapshot{}, err
	}
	p.last, p.taken = s, time.Now()
	return s, nil
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("remora_"+name, help, labels, nil)
}

var (
	descInfo   = desc("build_info", "Always 1; the labels say what runs here.", "version", "goversion", "cluster", "node", "profile")
	descStatus = desc("status_available", "1 if the daemon's loop has answered; without its answer most metrics are missing.")
	descQuorum = desc("quorum", "1 if this node is in touch with a majority under a leader.")
	descTTL    = desc("lease_ttl_seconds", "Length of a lease.")
	descMargin = desc("lease_margin_seconds", "Time that others wait beyond a lease.")
	descConfig = desc("config_version", "Version of the cluster's configuration.")
	descDryRun = desc("dry_run", "1 if the daemon carries nothing out.")
	descEnds   = desc("certificate_end_timestamp_seconds", "When this node's certificate ends, or its authority's if that is earlier, in seconds since 1970.")
	descKernel = desc("kernel_lease", "1 for the means by which this node's kernel holds leases.", "mode")

	descOwner     = desc("group_is_owner", "1 if the ledger says that this node owns the group.", "group")
	descOwned     = desc("group_has_owner", "1 if the ledger says that some node owns the group.", "group")
	descEpoch     = desc("group_epoch", "Number of the ownership; it rises with every grant.", "group")
	descLease     = desc("group_lease_remaining_seconds", "Time for which this node may still answer; only for groups that it holds.", "group")
	descAddresses = desc("group_addresses", "Addresses of the group.", "group")
	descBound     = desc("group_addresses_bound", "Addresses of the group that are bound on this node.", "group")
	descPaused    = desc("group_paused", "1 if the group is paused.", "group")
	descClients   = desc("group_client_connections", "Connections to the group's addresses, where they are counted.", "group")
	descConflicts = desc("group_conflicts_total", "Claims of strangers to the group's addresses that this node has seen.", "group")

	descHealth   = desc("mysql_health", "1 for the state of this node's own server.", "state")
	descRole     = desc("mysql_role", "1 for the role of this node's own server.", "role")
	descWritable = desc("mysql_writable", "1 if this node's own server is writable, 0 if it is not; missing if that is unknown.")
	descLag      = desc("mysql_replication_lag_seconds", "How far this node's own server is behind its source; missing if that is unknown.")

	descState   = desc("raft_state", "1 for the state of this node in Raft.", "state")
	descTerm    = desc("raft_term", "Raft's term on this node.")
	descLeader  = desc("raft_leader", "1 for the node that this node knows as leader.", "node")
	descIndex   = desc("raft_applied_index", "Last entry of Raft's log that is applied on this node.")
	descReached = desc("peer_reachable", "1 if the other node was heard lately.", "node")
	descRTT     = desc("peer_round_trip_seconds", "Time that the last exchange of hellos with the other node took.", "node")

	descAlarm    = desc("alarm_active", "For how many things the alarm is raised at the moment, as this node sees it.", "alarm")
	descProblems = desc("problems", "Lines under \"problems\" in this node's status.")
)

// Describe names nothing: which metrics there are depends on the snapshot.
func (p *picture) Describe(chan<- *prometheus.Desc) {}

// Collect shows the newest snapshot.
func (p *picture) Collect(ch chan<- prometheus.Metric) {
	s, err := p.snapshot()
	out := sink{ch}
	out.flag(descStatus, err == nil)
	if err != nil {
		return
	}
	out.daemon(s.Status)
	for _, g := range s.Status.Groups {
		out.group(g, s.Status.Node)
	}
	if i := slices.IndexFunc(s.Status.Nodes, func(n control.Node) bool { return n.Name == s.Status.Node }); i >= 0 && s.Status.Nodes[i].MySQL != nil {
		out.server(s.Status.Nodes[i].MySQL)
	}
	out.raft(s.Status, s.Raft)
	raised := alarms(s)
	for _, name := range alarmNames {
		out.gauge(descAlarm, float64(raised[name]), name)
	}
	out.gauge(descProblems, float64(len(s.Status.Problems)))
}

// sink takes metrics.
type sink struct{ ch chan<- prometheus.Metric }

func (s sink) gauge(d *prometheus.Desc, v float64, labels ...string) {
	s.ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (s sink) flag(d *prometheus.Desc, on bool, labels ...string) {
	v := 0.0
	if on {
		v = 1
	}
	s.gauge(d, v, labels...)
}

// oneOf shows which of several states is the present one.
func (s sink) oneOf(d *prometheus.Desc, present string, states ...string) {
	for _, state := range states {
		s.flag(d, state == present, state)
	}
}

func seconds(ms int64) float64 { return float64(ms) / 1000 }

func (s sink) daemon(st control.Status) {
	s.gauge(descInfo, 1, st.Version, runtime.Version(), st.Cluster, st.Node, st.Timing.Profile)
	s.flag(descQuorum, st.Quorum)
	s.gauge(descTTL, seconds(st.Timing.TTLMS))
	s.gauge(descMargin, seconds(st.Timing.MarginMS))
	s.gauge(descConfig, float64(st.ConfigVersion))
	s.flag(descDryRun, st.DryRun)
	s.gauge(descEnds, float64(st.Process.CertificateEnds.Unix()))
	s.oneOf(descKernel, st.Process.KernelLease, "nftables", "lifetime", "none")
}

func (s sink) group(g control.Group, self string) {
	s.flag(descOwner, g.Owner == self, g.Name)
	s.flag(descOwned, g.Owner != "", g.Name)
	s.gauge(descEpoch, float64(g.Epoch), g.Name)
	if g.LeaseLeftMS != nil {
		s.gauge(descLease, seconds(*g.LeaseLeftMS), g.Name)
	}
	s.gauge(descAddresses, float64(len(g.Addresses)), g.Name)
	s.gauge(descBound, float64(len(g.Bound)), g.Name)
	s.flag(descPaused, g.Paused, g.Name)
	if g.Clients != nil {
		s.gauge(descClients, float64(*g.Clients), g.Name)
	}
	s.ch <- prometheus.MustNewConstMetric(descConflicts, prometheus.CounterValue, float64(g.Conflicts), g.Name)
}

func (s sink) server(m *control.MySQL) {
	s.oneOf(descHealth, m.Health, "healthy", "failed", "unknown")
	s.oneOf(descRole, m.Role, "primary", "replica", "read-only", "unknown")
	if m.Writable != "unknown" {
		s.flag(descWritable, m.Writable == "yes")
	}
	if m.LagMS != nil {
		s.gauge(descLag, seconds(*m.LagMS))
	}
}

func (s sink) raft(st control.Status, r consensus.Status) {
	s.oneOf(descState, r.State, "starting", "joining", "follower", "candidate", "leader", "stopped")
	s.gauge(descTerm, float64(r.Term))
	for _, n := range st.Nodes {
		s.flag(descLeader, n.Name == string(r.Leader), n.Name)
	}
	s.gauge(descIndex, float64(r.Applied))
	for _, p := range r.Peers {
		s.flag(descReached, p.Reachable, string(p.Node))
		if p.RTT > 0 {
			s.gauge(descRTT, p.RTT.Seconds(), string(p.Node))
		}
	}
}
