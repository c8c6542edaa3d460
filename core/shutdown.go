package core

import "time"

// What the reasons of releases and moves that nobody asked for begin with.
const (
	// ReasonStopping is that of a release by a daemon that ends in an orderly way.
	ReasonStopping = "the daemon is stopping"
	// ReasonSwitchover begins that of a move that an operator has asked for, before the name of the target.
	ReasonSwitchover = "switchover to "
	// ReasonPreempted is that of a move to a node with a higher priority.
	ReasonPreempted = "preempted by a higher priority"
	// ReasonBalance is that of a move that spreads a pool's addresses.
	ReasonBalance = "balance: "
)

func (m *Machine) shutdownAsked() {
	if m.stopping != 0 {
		return
	}
	m.stopping, m.dirty = max(m.now, 1), true
	m.giveUpAll(ReasonStopping)
}

// shutdownLimit bounds an orderly end: two leases, which are over by then on everybody's clock, and a second.
func (m *Machine) shutdownLimit() time.Duration { return 2*m.ttl() + time.Second }

// finish ends the machine once nothing is held and leadership is handed on, or when that takes too long. Addresses that
// can not be removed keep the process alive.
func (m *Machine) finish() {
	if m.stopping == 0 || m.stopped {
		return
	}
	late := m.now.Sub(m.stopping) > m.shutdownLimit()
	for _, h := range m.held {
		if h.phase != releasing || !late {
			return
		}
	}
	if m.arb.elected != 0 && !late {
		m.handOver()
		return
	}
	m.stopped = true
	m.do(Stopped{})
}
