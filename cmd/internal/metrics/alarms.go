package metrics

// The alarms, by the names that docs/metrics.md explains.
const (
	alarmNoQuorum   = "no_quorum"
	alarmNoOwner    = "group_without_owner"
	alarmConflict   = "address_conflict"
	alarmUnheard    = "node_unheard"
	alarmFailed     = "mysql_not_healthy"
	alarmServer     = "mysql_attention"
	alarmAside      = "server_set_aside"
	alarmUnfenced   = "kernel_without_fence"
	alarmConfig     = "config_version_differs"
	alarmDisk       = "state_dir_disk"
	alarmRaft       = "raft_stopped"
	alarmWatchdog   = "watchdog_not_armed"
	watchdogNeeded  = "required"
	raftHasStopped  = "stopped"
	serverIsHealthy = "healthy"
)

var alarmNames = []string{alarmNoQuorum, alarmNoOwner, alarmConflict, alarmUnheard, alarmFailed, alarmServer, alarmAside, alarmUnfenced,
	alarmConfig, alarmDisk, alarmRaft, alarmWatchdog}

// alarms counts for each alarm the groups, nodes or servers for which it is raised.
func alarms(s Snapshot) map[string]int {
	raised := map[string]int{}
	raise := func(name string, on bool) {
		if on {
			raised[name]++
		}
	}
	raise(alarmNoQuorum, !s.Status.Quorum)
	holds := false
	for _, g := range s.Status.Groups {
		raise(alarmNoOwner, g.Owner == "")
		raise(alarmConflict, g.Contested)
		holds = holds || g.Phase != "none"
	}
	for _, n := range s.Status.Nodes {
		raise(alarmUnheard, !n.Reachable)
		if m := n.MySQL; m != nil && n.Reachable {
			raise(alarmFailed, m.Health != serverIsHealthy)
			raise(alarmServer, len(m.Alarms) > 0)
		}
		raise(alarmAside, n.SetAside != "")
		raise(alarmUnfenced, n.Unfenced)
		raise(alarmConfig, n.Reachable && s.Status.ConfigVersion != 0 && n.ConfigVersion != s.Status.ConfigVersion)
	}
	raise(alarmDisk, s.Raft.Disk != "")
	raise(alarmRaft, s.Raft.State == raftHasStopped)
	raise(alarmWatchdog, holds && s.Status.Process.Watchdog == watchdogNeeded && !s.Status.Process.WatchdogArmed)
	return raised
}
