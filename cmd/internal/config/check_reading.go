package config

import (
	"time"

	"github.com/remora-ha/remora/core"
)

// isReader reports whether a table is a reader group.
func isReader(raw *rawGroup) bool { return raw.Role.val == string(core.Reader) }

// reading checks what a reader group asks for.
func (c *checker) reading(raw *rawGroup) core.Reading {
	if !isReader(raw) {
		for _, k := range []struct {
			at  pos
			key string
		}{{raw.AllowPrimary.at, "allow_primary"}, {raw.BalanceAfter.at, "balance_after"}} {
			if k.at.line > 0 {
				c.warn(k.at, groupTable+" "+k.key, "has no effect without role = \"reader\": delete it")
			}
		}
		return core.Reading{}
	}
	if raw.Preempt.val {
		c.bad(raw.Preempt.at, groupTable+" preempt", "is for role \"writer\": reader addresses are spread over the replicas, and priority only decides between equals; delete it")
	}
	if raw.MaxLag.set() && raw.MaxLag.val > 0 && raw.MaxLag.val < time.Second {
		c.bad(raw.MaxLag.at, groupTable+" max_lag", "is %v: servers tell their lag in whole seconds, so write 1s or more", raw.MaxLag.val)
	}
	return core.Reading{MaxLag: c.limit(raw.MaxLag, "max_lag"), AllowPrimary: raw.AllowPrimary.val, BalanceAfter: c.limit(raw.BalanceAfter, "balance_after")}
}
