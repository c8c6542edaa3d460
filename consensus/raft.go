package consensus

import (
	"fmt"

	"github.com/hashicorp/raft"
)

const (
	// keptSnapshots is how many snapshots stay on disk.
	keptSnapshots = 2
	// snapshotEvery is the number of entries after which the log is replaced by a snapshot, trailingLogs how many
	// entries stay for followers that lag a little. A busy day of a cluster has a few hundred entries.
	snapshotEvery = 1024
	trailingLogs  = 512
	// cachedLogs is how many entries are kept in memory for followers.
	cachedLogs = 128
	// maxAppend is how many entries a follower gets at once.
	maxAppend = 64
)

func (n *Node) raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = n.id
	c.HeartbeatTimeout, c.ElectionTimeout = n.raftTimeouts(hurried)
	// The library's own lease is no fence for Remora; it makes a leader that is cut off stand down.
	c.LeaderLeaseTimeout = n.cfg.Timing.RaftHeartbeat
	c.CommitTimeout = n.lim.commit
	c.MaxAppendEntries = maxAppend
	c.SnapshotThreshold = snapshotEvery
	c.TrailingLogs = trailingLogs
	// A removed server stops voting by itself and is told by judgeRemoval what to do.
	c.ShutdownOnRemove = false
	c.NoLegacyTelemetry = true
	c.Logger = newRaftLogger(n.log)
	return c
}

// startRaft starts the Raft server on the state that is there.
func (n *Node) startRaft() error {
	c := n.raftConfig()
	cache, err := raft.NewLogCache(cachedLogs, &leaderLog{store: n.store, n: n})
	if err != nil {
		return fmt.Errorf("start Raft: %w", err)
	}
	timer, err := n.cfg.Alarms.New()
	if err != nil {
		return fmt.Errorf("start Raft: make a timer: %w", err)
	}
	n.trans = newTransport(n, c.Logger)
	r, err := raft.NewRaft(c, n.fsm, cache, n.store, n.snaps, n.trans)
	if err != nil {
		_ = n.trans.Close()
		timer.Stop()
		return fmt.Errorf("start Raft in %s: %w", n.cfg.StateDir, err)
	}
	n.raft.Store(r)
	n.hasState.Store(true)
	n.joining.Store(false)
	n.observe(r)
	n.spawn(func() { n.hasten(r, timer) })
	n.nudgeAll()
	return nil
}

// found writes the first configuration of the cluster on this node. Once it is on disk this node is not empty any more,
// so it is done at most once.
func (n *Node) found(servers []raft.ServerID) error {
	var c raft.Configuration
	for _, id := range servers {
		c.Servers = append(c.Servers, raft.Server{Suffrage: raft.Voter, ID: id, Address: raft.ServerAddress(id)})
	}
	// The transport is asked for nothing with the present protocol version.
	if err := raft.BootstrapCluster(n.raftConfig(), n.store, n.store, n.snaps, nil, c); err != nil {
		return fmt.Errorf("found the cluster: %w", err)
	}
	return nil
}
