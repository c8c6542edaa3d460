package core

import "time"

func (m *Machine) shutdownAsked() {
	if m.stopping != 0 {
		return
	}
	m.stopping, m.dirty = max(m.now, 1), true
	m.giveUpAll("the daemon is stopping")
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
