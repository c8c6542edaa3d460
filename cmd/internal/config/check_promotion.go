package config

import (
	"time"

	"github.com/remora-ha/remora/core"
)

// promotion checks the limits of policy promote.
func (c *checker) promotion(raw *rawGroup) core.Promotion {
	if raw.Policy.val != string(core.Promote) {
		for _, k := range []struct {
			at  pos
			key string
		}{{raw.MaxLost.at, "max_lost_transactions"}, {raw.MaxLag.at, "max_lag"}, {raw.ApplyWithin.at, "apply_within"},
			{raw.Drain.at, "drain"}, {raw.CatchUp.at, "catch_up"}, {raw.FencePort.at, "fence_port"}} {
			if k.at.line > 0 {
				c.warn(k.at, groupTable+" "+k.key, "has no effect without policy = \"promote\": delete it")
			}
		}
		return core.Promotion{}
	}
	const fence = groupTable + " fence_port"
	switch at := raw.FencePort.at; {
	case at.line == 0:
		c.bad(raw.Policy.at, fence, "is missing: this release closes only the group's addresses and not the server's own port when a node loses the group. Write fence_port = false if no client connects to the servers by their own addresses")
	case raw.FencePort.val:
		c.bad(at, fence, "true is not in this release: write false if no client connects to the servers by their own addresses")
	}
	if raw.MaxLost.val < -1 {
		c.bad(raw.MaxLost.at, groupTable+" max_lost_transactions", "is %d: write 0 or more, or -1 for any number", raw.MaxLost.val)
	}
	if raw.Preempt.val {
		c.bad(raw.Preempt.at, groupTable+" preempt", "has no effect with policy = \"promote\": a switchover stops writes, so somebody has to ask for it")
	}
	return core.Promotion{
		MaxLost: raw.MaxLost.val, MaxLag: c.limit(raw.MaxLag, "max_lag"), ApplyWithin: c.limit(raw.ApplyWithin, "apply_within"),
		Drain: c.limit(raw.Drain, "drain"), CatchUp: c.limit(raw.CatchUp, "catch_up"),
	}
}

// limit is a duration in whole milliseconds; one that is not in the file is 0.
func (c *checker) limit(s span, key string) core.Millis {
	if s.set() && (s.val < time.Millisecond || s.val > time.Hour || s.val%time.Millisecond != 0) {
		c.bad(s.at, groupTable+" "+key, "is %v: write whole milliseconds, from 1ms to 1h", s.val)
		return 0
	}
	return core.Millis(s.val.Milliseconds())
}
