package core

import (
	"fmt"
	"math"
	"time"
)

// pace is how fast a node's server executes transactions, by its last two reports of what it has executed.
type pace struct {
	at        Instant // when the last set came that was another one than before
	perSecond float64
}

// paceFor is how long a pace says something of the present.
const paceFor = 5 * time.Second

// executedBy takes note of what a node's server has executed.
func (m *Machine) executedBy(n NodeName, set string) {
	if set == "" || set == m.executed[n] {
		return
	}
	before, known := m.executed[n]
	p := pace{at: m.now}
	if since := m.now.Sub(m.paces[n].at); known && m.opt.Sets != nil && since > 0 && since < paceFor {
		if count, err := m.opt.Sets.Missing(set, before); err == nil {
			p.perSecond = float64(count) / since.Seconds()
		}
	}
	m.executed[n], m.paces[n] = set, p
}

// mayBeLost says in words what a chosen server may lack of what the old owner has executed. What that one has written since
// it last told what it has executed nobody knows; by its pace it is told about how much that is.
func (m *Machine) mayBeLost(s standing, owner NodeName, last string) string {
	if owner == "" {
		return ""
	}
	if last == "" {
		return fmt.Sprintf("nobody knows what %s had executed, nor what of it %s lacks", owner, s.node)
	}
	text := fmt.Sprintf("%s has all that %s is known to have executed", s.node, owner)
	n, err := m.opt.Sets.Missing(last, s.all)
	switch {
	case err != nil:
		text = fmt.Sprintf("what %s lacks of %s can not be told: %v", s.node, owner, err)
	case n > 0:
		text = fmt.Sprintf("%s lacks %d transactions that %s is known to have executed", s.node, n, owner)
	}
	ended := m.now
	if p := m.peers[owner]; p != nil && p.heard {
		ended = p.at
		if p.failed && p.report.Health.State == Failed {
			ended = p.failedAt
		}
	}
	since := max(ended.Sub(m.paces[owner].at), 0)
	if since > paceFor {
		return text
	}
	unknown := uint64(math.Ceil(m.paces[owner].perSecond * since.Seconds()))
	return text + fmt.Sprintf("; of its last %v about %d more may be lost", since.Round(time.Millisecond), unknown)
}
