package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Status is what the laboratory reads of "remora status --json", schema 1. There is more in Raw.
type Status struct {
	Node     string        `json:"node"`
	Quorum   bool          `json:"quorum"`
	Leader   string        `json:"leader"`
	Groups   []GroupStatus `json:"groups"`
	Nodes    []NodeStatus  `json:"nodes"`
	Problems []Problem     `json:"problems"`
	// ConfigVersion is the version that is in the ledger.
	ConfigVersion int             `json:"config_version"`
	Process       ProcessStatus   `json:"process"`
	Raw           json.RawMessage `json:"-"`
}

// ProcessStatus is the state of the daemon that answered.
type ProcessStatus struct {
	// AppendP99US is the time in which 99 of 100 writes to the log end, in microseconds.
	AppendP99US int64 `json:"append_p99_us"`
}

// GroupStatus is the state of one group.
type GroupStatus struct {
	Name      string `json:"name"`
	Owner     string `json:"owner"`
	Epoch     uint64 `json:"epoch"`
	BoundHere bool   `json:"bound_here"`
	Paused    bool   `json:"paused"`
	MovingTo  string `json:"moving_to"`
	Clients   *int   `json:"clients"`
}

// NodeStatus is the state of one node.
type NodeStatus struct {
	Name      string       `json:"name"`
	Witness   bool         `json:"witness"`
	Voter     bool         `json:"voter"`
	Leader    bool         `json:"leader"`
	Reachable bool         `json:"reachable"`
	Starting  bool         `json:"starting"`
	SetAside  string       `json:"set_aside"`
	MySQL     *MySQLStatus `json:"mysql"`
}

// MySQLStatus is the state of a node's server.
type MySQLStatus struct {
	Health string `json:"health"`
	Reason string `json:"reason"`
	LagMS  *int64 `json:"lag_ms"`
	// MeasuredLagMS is null when unknown, as LagMS is.
	MeasuredLagMS *int64 `json:"measured_lag_ms"`
	// SemiSync is how commits wait for replicas, nil where they do not or that is not known.
	SemiSync *SemiSyncStatus `json:"semi_sync"`
}

// SemiSyncStatus is the state of a server's semi-synchronous replication.
type SemiSyncStatus struct {
	Waits    bool `json:"waits"`
	Acks     int  `json:"acks"`
	Replicas int  `json:"replicas"`
}

// Problem is something that the daemon reports as not right.
type Problem struct {
	Subject string `json:"subject"`
	Text    string `json:"text"`
}

// Status asks the node's daemon.
func (n *Node) Status(ctx context.Context) (Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	out, err := n.Remora(ctx, "status", "--json")
	if err != nil && len(out) == 0 {
		return Status{}, err
	}
	// A status that tells of problems may end with another exit status than 0.
	s := Status{Raw: out}
	if err := json.Unmarshal(out, &s); err != nil {
		return s, fmt.Errorf("read the status of %s: %w", n.Name, err)
	}
	return s, nil
}

// Group returns the state of a group, the zero value if the daemon does not know it.
func (s Status) Group(name string) GroupStatus {
	for _, g := range s.Groups {
		if g.Name == name {
			return g
		}
	}
	return GroupStatus{}
}

// Owner returns the owner of the laboratory's group, empty if there is none.
func (s Status) Owner() string { return s.Group(Group).Owner }

// Leader returns the Raft leader as the daemons see it, when all that answer agree.
func (l *Lab) Leader(ctx context.Context) (string, error) {
	leader := ""
	for _, n := range l.nodes {
		if p := n.Daemon(); p == nil || !p.Running() {
			continue
		}
		s, err := n.Status(ctx)
		if err != nil {
			return "", err
		}
		if s.Leader == "" || leader != "" && s.Leader != leader {
			return "", fmt.Errorf("the daemons do not agree on a leader: %s says %q, another %q", n.Name, s.Leader, leader)
		}
		leader = s.Leader
	}
	return leader, nil
}

// WaitStable waits until all daemons agree that everything is well: one leader, all nodes reachable and voting, all
// servers healthy, and the VIP held by its owner, which the kernel confirms.
func (l *Lab) WaitStable(ctx context.Context) error {
	var why error
	err := poll(ctx, 50*time.Millisecond, func() (bool, error) {
		leader := ""
		for _, n := range l.nodes {
			s, err := n.Status(ctx)
			if err == nil {
				err = l.unsettled(s)
			}
			if err == nil && leader != "" && s.Leader != leader {
				err = fmt.Errorf("%s takes %s for the leader, another node %s", n.Name, s.Leader, leader)
			}
			if why = err; err != nil {
				return false, nil
			}
			leader = s.Leader
		}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("wait until the cluster is well: %w", errors.Join(err, why))
	}
	return nil
}

// unsettled says what is not well in a status, or nothing.
func (l *Lab) unsettled(s Status) error {
	g := s.Group(Group)
	switch {
	case !s.Quorum || s.Leader == "":
		return fmt.Errorf("%s has no quorum or knows no leader", s.Node)
	case g.Owner == "" || g.MovingTo != "":
		return fmt.Errorf("%s: owner %q, moving to %q", s.Node, g.Owner, g.MovingTo)
	case g.Owner != l.Holder(l.VIP()):
		return fmt.Errorf("%s: owner %s, but the address is on %q", s.Node, g.Owner, l.Holder(l.VIP()))
	case len(s.Nodes) != len(l.nodes):
		return fmt.Errorf("%s knows %d nodes of %d", s.Node, len(s.Nodes), len(l.nodes))
	}
	for _, n := range s.Nodes {
		healthy := n.Witness || l.opts.Server == nil || n.MySQL != nil && n.MySQL.Health == "healthy"
		if !n.Reachable || n.Starting || !n.Voter || !healthy {
			return fmt.Errorf("%s: %s: reachable %v, starting %v, voter %v, server %+v",
				s.Node, n.Name, n.Reachable, n.Starting, n.Voter, n.MySQL)
		}
	}
	return nil
}
