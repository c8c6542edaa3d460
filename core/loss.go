package core

import (
	"fmt"
	"math"
	"time"
)

// pace is how fast a node's server executes transactions, by its last two reports of what it has executed.
type pace struct {
	at        Instant // when the last set came that was another one than before
	perSecond float64 // 0 if there was no other set within paceFor before that one
}

// paceFor is how long a pace says something of the present.
const paceFor = 5 * time.Second

// executedBy takes note of what a node's server has executed. A set that comes with the news of its failure was read some time
// before, but not before the last one was told: the pace goes on from there, so that what may be lost is rather too much.
func (m *Machine) executedBy(n NodeName, set string, state HealthState) {
	if set == "" || set == m.executed[n] {
		return
	}
	before, known := m.executed[n]
	last := m.paces[n]
	p := pace{at: m.now}
	if since := m.now.Sub(last.at); known && m.opt.Sets != nil && since > 0 && since < paceFor {
		if count, err := m.opt.Sets.Missing(set, before); err == nil {
			p.perSecond = float64(count) / since.Seconds()
		}
	}
	if known && state == Failed {
		p = pace{at: last.at, perSecond: max(p.perSecond, last.perSecond)}
	}
	m.executed[n], m.paces[n] = set, p
}

// noticed is how long after it stops to answer a server is known to be dead at the latest: its last word on how commits wait is
// a second old, the one before that another, and some probes fail before it counts.
const noticed = 5 * time.Second

// waited returns why what a chosen server lacks of the old owner was never acknowledged to a client, or nothing where that is
// not certain. It is if commits waited until enough replicas had received them that those which take part in the choice can not
// all be without; and the chosen one has all that any of these has. A replica that is not heard may have acknowledged, also one
// that replicates no more. One outside of the cluster is not asked, and the server's count of replicas does not tell one from a
// replica of the cluster that is missing: the words say so.
func (m *Machine) waited(s standing, owner NodeName, ss []standing) string {
	p := m.peers[owner]
	if p == nil || !p.heard {
		return ""
	}
	replicas := -1 // the owner's server is none
	for _, n := range m.view.Config.Nodes {
		if !n.Witness {
			replicas++
		}
	}
	semi := p.report.Health.SemiSync
	switch {
	case !semi.Waits || !semi.AfterSync || !semi.Alone,
		m.now.Sub(p.at)+noticed >= semi.Timeout,
		int(semi.Replicas) > replicas || semi.Acks == 0,
		len(ss) < replicas-int(semi.Acks)+1,
		lacks(m.opt.Sets, s, ss) != "":
		return ""
	}
	return fmt.Sprintf("nothing that was acknowledged is lost, unless by a replica outside of the cluster: commits waited for %d of %d replicas, and %d have answered",
		semi.Acks, replicas, len(ss))
}

// mayBeLost says in words what a chosen server may lack of what the old owner has executed. What that one has written since
// it last told what it has executed nobody knows; by its pace it is told about how much that is.
func (m *Machine) mayBeLost(s standing, owner NodeName, last string, ss []standing) string {
	if owner == "" {
		return ""
	}
	none := m.waited(s, owner, ss)
	if last == "" && none != "" {
		return none
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
	if none != "" {
		return text + "; " + none
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
	if m.paces[owner].perSecond == 0 {
		return text + fmt.Sprintf("; of its last %v some more may be lost", since.Round(time.Millisecond))
	}
	unknown := uint64(math.Ceil(m.paces[owner].perSecond * since.Seconds()))
	return text + fmt.Sprintf("; of its last %v about %d more may be lost", since.Round(time.Millisecond), unknown)
}
