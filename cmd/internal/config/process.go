package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Process says how a daemon behaves towards the machine that it runs on. Nodes may differ in it.
type Process struct {
	KernelLease KernelLease
	Scheduling  Scheduling
	LockMemory  LockMemory
	Watchdog    WatchdogMode
	// WatchdogDevice is the device of a watchdog that resets the machine, WatchdogTimeout after its last sign of life.
	WatchdogDevice  string
	WatchdogTimeout time.Duration
}

// KernelLease says by what the kernel of this node is to hold leases.
type KernelLease string

// The ways to hold a lease in the kernel.
const (
	// LeaseNFTables is the fence, to the millisecond. Without nf_tables it is LeaseLifetime.
	LeaseNFTables KernelLease = "nftables"
	// LeaseLifetime is the lifetimes of addresses alone, to the second.
	LeaseLifetime KernelLease = "lifetime"
)

// Scheduling is the scheduling class that the daemon gives itself.
type Scheduling struct {
	// Class is "rr", "fifo", "nice" or "inherit".
	Class string
	// Priority is the real-time priority, 1 to 99, or the nice value, -20 to 19.
	Priority int
}

// LockMemory says which of its pages the daemon keeps in memory.
type LockMemory string

// The ways to lock memory.
const (
	LockNothing LockMemory = "off"
	// LockTouched locks what was touched once (MCL_ONFAULT): nothing that is in use is ever read from disk again.
	LockTouched LockMemory = "touched"
	// LockAll locks the whole address space, what is never used as well.
	LockAll LockMemory = "all"
)

// WatchdogMode says whether the daemon keeps a watchdog device that resets a machine which stands still.
type WatchdogMode string

// The modes of a watchdog, as Patroni names them.
const (
	WatchdogOff       WatchdogMode = "off"
	WatchdogAutomatic WatchdogMode = "automatic"
	WatchdogRequired  WatchdogMode = "required"
)

// Defaults of the [process] table.
const (
	DefaultWatchdogDevice  = "/dev/watchdog"
	DefaultWatchdogTimeout = 10 * time.Second
)

// maxWatchdogTimeout keeps a node that hangs from staying for hours, and fits every driver's 16 bits of seconds.
const maxWatchdogTimeout = 10 * time.Minute

// defaultScheduling is a real-time class where a lease is shorter than a busy host may take to look after a process. The
// Go runtime pays for it: its monitor wakes up far more often where the kernel may not let it sleep a little longer, which
// in a real-time class it never does.
func defaultScheduling(profile string) Scheduling {
	if profile == "fast" {
		return Scheduling{Class: "rr", Priority: 1}
	}
	return Scheduling{Class: "nice", Priority: -15}
}

const processTable = "[process]"

func (c *checker) process() {
	raw := &c.raw.Process
	p := Process{
		KernelLease: LeaseNFTables, Scheduling: defaultScheduling(c.cfg.Profile), LockMemory: LockTouched, Watchdog: WatchdogOff,
		WatchdogDevice: DefaultWatchdogDevice, WatchdogTimeout: DefaultWatchdogTimeout,
	}
	choose(c, &p.KernelLease, raw.KernelLease, "kernel_lease", LeaseNFTables, LeaseLifetime)
	choose(c, &p.LockMemory, raw.LockMemory, "lock_memory", LockNothing, LockTouched, LockAll)
	choose(c, &p.Watchdog, raw.Watchdog, "watchdog", WatchdogOff, WatchdogAutomatic, WatchdogRequired)
	if raw.Scheduling.set() {
		s, why := parseScheduling(raw.Scheduling.val)
		if why != "" && c.isWellFormed(raw.Scheduling.at, processTable+" scheduling") {
			c.bad(raw.Scheduling.at, processTable+" scheduling", "%s", why)
		}
		p.Scheduling = s
	}
	if raw.WatchdogDevice.set() {
		p.WatchdogDevice = raw.WatchdogDevice.val
		c.absolute(raw.WatchdogDevice, processTable+" watchdog_device")
		c.required(raw.WatchdogDevice, raw.Header, processTable, "watchdog_device", "the device, usually \"/dev/watchdog\"")
	}
	if raw.WatchdogTimeout.set() {
		p.WatchdogTimeout = raw.WatchdogTimeout.val
		c.watchdogTimeout(raw.WatchdogTimeout)
	}
	c.cfg.Process = p
	c.cfg.at["process"] = raw.Header.At
	c.leaseWithoutFence(raw)
}

// choose takes one of a few words.
func choose[T ~string](c *checker, to *T, t text, key string, words ...T) {
	if !t.set() {
		return
	}
	key = processTable + " " + key
	var names []string
	for _, w := range words {
		names = append(names, string(w))
		if t.val == string(w) {
			*to = w
			return
		}
	}
	if c.isWellFormed(t.at, key) {
		c.bad(t.at, key, "%s", withNearest(fmt.Sprintf("there is no %q: use one of %s", shorten(t.val), strings.Join(names, ", ")), t.val, names))
	}
}

// parseScheduling reads "inherit", "rr:N", "fifo:N" or "nice:N".
func parseScheduling(s string) (Scheduling, string) {
	const usage = `use "inherit", "nice:-15", or a real-time class with a low priority such as "rr:1" or "fifo:1"`
	class, number, has := strings.Cut(s, ":")
	least, most := 1, 99
	switch {
	case s == "inherit":
		return Scheduling{Class: s}, ""
	case !has:
		return Scheduling{}, fmt.Sprintf("%q is no scheduling class with a priority: %s", shorten(s), usage)
	case class == "nice":
		least, most = -20, 19
	case class != "rr" && class != "fifo":
		return Scheduling{}, fmt.Sprintf("there is no scheduling class %q: %s", shorten(class), usage)
	}
	n, err := strconv.Atoi(number)
	if err != nil || n < least || n > most {
		return Scheduling{}, fmt.Sprintf("the priority of %s is %q: it must be a whole number from %d to %d", class, shorten(number), least, most)
	}
	return Scheduling{Class: class, Priority: n}, ""
}

func (c *checker) watchdogTimeout(s span) {
	const key = processTable + " watchdog_timeout"
	switch {
	case !c.isWellFormed(s.at, key):
	case s.val%time.Second != 0:
		c.bad(s.at, key, "is %v: watchdogs count whole seconds", s.val)
	case s.val < 2*time.Second:
		c.bad(s.at, key, "is %v: it must be at least 2s, since a driver may round by one and a busy machine must not be reset", s.val)
	case s.val > maxWatchdogTimeout:
		c.bad(s.at, key, "is %v: it must be at most %v, since a machine that hangs is reset only then", s.val, maxWatchdogTimeout)
	}
}

// leaseWithoutFence refuses leases that lifetimes of whole seconds can not hold.
func (c *checker) leaseWithoutFence(raw *rawProcess) {
	if c.cfg.Process.KernelLease != LeaseLifetime || c.cfg.timing.TTL == 0 || !c.timingIsWhole() {
		return
	}
	for _, p := range c.cfg.timing.CheckUnfenced() {
		c.bad(raw.KernelLease.at, processTable+" kernel_lease", "%s", p.Text)
	}
}

// Unfenced returns what is wrong with the file for a machine whose kernel has no fence, which only the daemon finds out.
func (c *Config) Unfenced() Problems {
	var ps Problems
	for _, p := range c.timing.CheckUnfenced() {
		ps = append(ps, Problem{File: c.Path, Line: c.at["process"].line, Key: "[timing] " + p.Key, Text: p.Text})
	}
	if at, fenced := c.at["group.fence_port"]; fenced {
		ps = append(ps, Problem{File: c.Path, Line: at.line, Key: groupTable + " fence_port",
			Text: "needs the kernel's fence (nf_tables), which is not there: load it, or write fence_port = false and see to it that no client connects to the servers by their own addresses"})
	}
	return ps
}
