package config

// The raw structs mirror the file. They are the only place where keys are named: the decoder refuses every key that
// has no field here.

type rawFile struct {
	Header      header
	Cluster     text           `toml:"cluster"`
	Version     integer        `toml:"version"`
	Profile     text           `toml:"profile"`
	StateDir    text           `toml:"state_dir"`
	Socket      text           `toml:"socket"`
	Timing      rawTiming      `toml:"timing"`
	Process     rawProcess     `toml:"process"`
	MySQL       rawMySQL       `toml:"mysql"`
	Replication rawReplication `toml:"replication"`
	TLS         rawTLS         `toml:"tls"`
	MHA         rawMHA         `toml:"mha"`
	Metrics     rawMetrics     `toml:"metrics"`
	Nodes       []rawNode      `toml:"node"`
	Groups      []rawGroup     `toml:"group"`
}

type rawTiming struct {
	Header        header
	Heartbeat     span    `toml:"heartbeat"`
	TTL           span    `toml:"ttl"`
	Unbind        span    `toml:"unbind"`
	RaftHeartbeat span    `toml:"raft_heartbeat"`
	RaftElection  span    `toml:"raft_election"`
	Probe         span    `toml:"probe"`
	ProbeTimeout  span    `toml:"probe_timeout"`
	Fall          integer `toml:"fall"`
	Rise          integer `toml:"rise"`
	CoolDown      span    `toml:"cool_down"`
}

type rawProcess struct {
	Header          header
	KernelLease     text `toml:"kernel_lease"`
	Scheduling      text `toml:"scheduling"`
	LockMemory      text `toml:"lock_memory"`
	Watchdog        text `toml:"watchdog"`
	WatchdogDevice  text `toml:"watchdog_device"`
	WatchdogTimeout span `toml:"watchdog_timeout"`
}

type rawMySQL struct {
	Header       header
	Address      text `toml:"address"`
	User         text `toml:"user"`
	PasswordFile text `toml:"password_file"`
}

type rawReplication struct {
	Header       header
	User         text    `toml:"user"`
	PasswordFile text    `toml:"password_file"`
	TLS          boolean `toml:"tls"`
	CA           text    `toml:"ca"`
	VerifyName   boolean `toml:"verify_name"`
}

type rawTLS struct {
	Header header
	CA     text `toml:"ca"`
	Cert   text `toml:"cert"`
	Key    text `toml:"key"`
}

type rawMHA struct {
	Header        header
	Wait          span    `toml:"wait"`
	Waive         span    `toml:"waive"`
	Graceful      boolean `toml:"graceful"`
	Drain         span    `toml:"drain"`
	ClearReadOnly boolean `toml:"clear_read_only"`
}

type rawMetrics struct {
	Header header
	Listen text `toml:"listen"`
}

type rawNode struct {
	Header       header
	Name         text    `toml:"name"`
	Address      text    `toml:"address"`
	Witness      boolean `toml:"witness"`
	Priority     integer `toml:"priority"`
	Interface    text    `toml:"interface"`
	Interfaces   dict    `toml:"interfaces"`
	MySQLAddress text    `toml:"mysql_address"`
	Aliases      list    `toml:"aliases"`
	MySQL        text    `toml:"mysql"`
	Metrics      text    `toml:"metrics"`
}

type rawGroup struct {
	Header    header
	Name      text    `toml:"name"`
	Role      text    `toml:"role"`
	Policy    text    `toml:"policy"`
	Addresses list    `toml:"addresses"`
	Interface text    `toml:"interface"`
	Preempt   boolean `toml:"preempt"`
	Label     text    `toml:"label"`

	KeepUnwritable span `toml:"keep_unwritable"`

	MaxLost     integer `toml:"max_lost_transactions"`
	MaxLag      span    `toml:"max_lag"`
	ApplyWithin span    `toml:"apply_within"`
	Drain       span    `toml:"drain"`
	CatchUp     span    `toml:"catch_up"`
	FencePort   boolean `toml:"fence_port"`
	FenceAllow  list    `toml:"fence_allow"`

	AllowPrimary boolean `toml:"allow_primary"`
	BalanceAfter span    `toml:"balance_after"`
}

// header is where a table begins: the line to blame for a key that is missing.
type header struct{ At pos }
