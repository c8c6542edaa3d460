package core

import "fmt"

// keepPrimary bounds the first choice of a group: nobody knows yet who was the primary before. A server that is writable is
// it, and goes on; its replicas may be behind, and clients may be writing to it. If none is writable, a node that has not
// answered may have the primary, so that all must have.
func (m *Machine) keepPrimary(ss []standing) (refused string) {
	var writable NodeName
	answered := map[NodeName]bool{}
	for _, s := range ss {
		answered[s.node] = true
		if m.peers[s.node].report.Health.Writable != Yes {
			continue
		}
		if writable != "" {
			return fmt.Sprintf("the servers of %s and %s are both writable, and nobody knows which one is the primary: set the other one read-only", writable, s.node)
		}
		writable = s.node
	}
	for _, n := range m.view.Config.Nodes {
		if writable == "" && !n.Witness && !answered[n.Name] {
			return fmt.Sprintf("no server is writable, and %s, which has not answered, may have the primary", n.Name)
		}
	}
	for i := range ss {
		if writable != "" && ss[i].node != writable && ss[i].unfit == "" {
			ss[i].unfit = fmt.Sprintf("%s is the primary already", writable)
		}
	}
	return ""
}
