package core

import "fmt"

// mhaActs returns in words on whose server MHA's failover lock is held, as far as the members that are heard see it, or
// nothing. That it is not held anywhere is only known if all of them say so.
func (m *Machine) mhaActs() string {
	for n := range m.everyone() {
		if p := m.peers[n]; m.recent(p) && p.report.Health.MHAActs == Yes {
			return fmt.Sprintf("MHA's failover lock is held on the server of %s, so MHA fails over or switches", n)
		}
	}
	return ""
}

// mhaFindings says in sentences where MHA and policy promote are in each other's way.
func (m *Machine) mhaFindings(n NodeStatus, add func(string, string, ...any)) {
	g := m.promoted()
	if g.Spec.Name == "" || !n.Reachable {
		return
	}
	if subject, h := "node "+string(n.Spec.Name), n.Report.Health; h.MHAActs == Yes {
		add(subject, "MHA's failover lock is held on its server: as long as it is, nobody is promoted for group %s by itself.", g.Spec.Name)
	} else if h.MHAWatches == Yes {
		add(subject, "An MHA manager watches its server, and Remora promotes for group %s: stop one of them, or use policy follow.", g.Spec.Name)
	}
}
