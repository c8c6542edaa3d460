package sim

// String names a fault as the trace does.
func (k faultKind) String() string {
	return [...]string{"partition", "one way", "isolate", "lossy", "slow node", "power off", "starve", "mysql flip", "link flip",
		"deleted by hand", "added by hand", "foreign claim", "move", "pause", "advise", "shutdown", "transfer", "configure",
		"disk stall", "binds fail", "clock jump", "two leaders", "shorten lease",
		"kill", "freeze", "suspend", "kernel slow", "kernel hang", "flush"}[k]
}
