package config

import (
	"cmp"
	"net/netip"
	"time"

	"github.com/remora-ha/remora/core"
)

// promotion checks the limits of policy promote.
func (c *checker) promotion(raw *rawGroup) core.Promotion {
	if !promotes(raw) {
		for _, k := range []struct {
			at  pos
			key string
		}{{raw.MaxLost.at, "max_lost_transactions"}, {raw.MaxLag.at, "max_lag"}, {raw.ApplyWithin.at, "apply_within"},
			{raw.Drain.at, "drain"}, {raw.CatchUp.at, "catch_up"}, {raw.FencePort.at, "fence_port"},
			{raw.FenceAllow.at, "fence_allow"}} {
			if k.at.line > 0 && (k.key != "max_lag" || !isReader(raw)) {
				c.warn(k.at, groupTable+" "+k.key, "has no effect without policy = \"promote\": delete it")
			}
		}
		return core.Promotion{}
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

// promotes reports whether a table is a writer group of policy promote.
func promotes(raw *rawGroup) bool { return raw.Policy.val == string(core.Promote) && !isReader(raw) }

// fencePort is true by default under policy promote.
func (c *checker) fencePort(raw *rawGroup) bool {
	if !promotes(raw) || raw.FencePort.at.line > 0 && !raw.FencePort.val {
		return false
	}
	c.cfg.at["group.fence_port"] = cmp.Or(raw.FencePort.at, raw.Policy.at)
	return true
}

// maxAllowed bounds the networks besides the members that reach the servers by their own addresses.
const maxAllowed = 16

// fenceAllow lists networks and addresses.
func (c *checker) fenceAllow(raw *rawGroup) []netip.Prefix {
	const key = groupTable + " fence_allow"
	if !promotes(raw) {
		return nil // of which there is a warning already
	}
	if n := len(raw.FenceAllow.items); n > maxAllowed {
		c.bad(raw.FenceAllow.at, key, "has %d networks: use at most %d", n, maxAllowed)
	}
	if raw.FencePort.at.line > 0 && !raw.FencePort.val && len(raw.FenceAllow.items) > 0 {
		c.bad(raw.FenceAllow.at, key, "has no effect with fence_port = false: delete it")
	}
	var out []netip.Prefix
	for _, t := range raw.FenceAllow.items {
		p, err := parsePrefix(t.val)
		switch {
		case err != nil || p.Addr().Is4In6():
			c.bad(t.at, key, "%q is neither an address nor a network: write those that reach the servers by their own addresses, like \"10.77.0.50\" or \"10.77.4.0/24\"", shorten(t.val))
		case p.Bits() == 0:
			c.bad(t.at, key, "%q is everybody: write fence_port = false if the servers' ports shall stay open", shorten(t.val))
		default:
			out = append(out, p.Masked())
		}
	}
	return out
}

// limit is a duration in whole milliseconds; one that is not in the file is 0.
func (c *checker) limit(s span, key string) core.Millis {
	if s.set() && (s.val < time.Millisecond || s.val > time.Hour || s.val%time.Millisecond != 0) {
		c.bad(s.at, groupTable+" "+key, "is %v: write whole milliseconds, from 1ms to 1h", s.val)
		return 0
	}
	return core.Millis(s.val.Milliseconds())
}
