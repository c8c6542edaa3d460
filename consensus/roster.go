package consensus

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// roster remembers who votes by Raft's latest configuration. Each datagram asks for that, and Raft makes a future of each answer.
//
// Raft takes a configuration in one of three ways: after it has appended an entry with one, after it has removed the end of
// its log, and after it has restored a snapshot. It does not tell when, but its next append comes later. So who votes is
// asked anew from the beginning of each of the three until Raft appends again, and what was remembered before is
// never used again. A server that was removed is no voter from the moment on from which it is none to Raft.
type roster struct {
	mu    sync.Mutex // for those that change era
	era   atomic.Uint64
	known atomic.Pointer[electorate]
}

// electorate is who votes in an era. Eras are even; while the number is odd Raft may take a configuration at any time.
type electorate struct {
	era    uint64
	voters []raft.ServerID
}

// unsettle is called before Raft may take a configuration.
func (r *roster) unsettle() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.era.Store(r.era.Load() | 1)
}

// appends is called before Raft's loop appends entries. What it has done before is done.
func (r *roster) appends(ls []*raft.Log) {
	r.mu.Lock()
	if era := r.era.Load(); era%2 == 1 {
		r.era.Store(era + 1)
	}
	r.mu.Unlock()
	if slices.ContainsFunc(ls, func(l *raft.Log) bool { return l.Type != raft.LogCommand && l.Type != raft.LogNoop }) {
		r.unsettle()
	}
}

// votes reports whether a server votes by Raft's latest configuration, which latest returns.
func (r *roster) votes(id raft.ServerID, latest func() raft.Configuration) bool {
	era := r.era.Load()
	if k := r.known.Load(); k != nil && k.era == era {
		return slices.Contains(k.voters, id)
	}
	c := latest()
	if era%2 == 0 && r.era.Load() == era {
		k := &electorate{era: era}
		for _, s := range c.Servers {
			if s.Suffrage == raft.Voter {
				k.voters = append(k.voters, s.ID)
			}
		}
		r.known.Store(k)
	}
	return isVoter(c, id)
}
