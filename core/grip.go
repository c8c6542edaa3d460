package core

// Grip says what a node has in its hands, for a watchdog that resets the machine when nobody can be sure any more.
type Grip uint8

// The grips.
const (
	// GripNone: nothing that this process has bound is left.
	GripNone Grip = iota
	// GripFirm: it serves or claims, and every lease stands.
	GripFirm
	// GripSlipping: something is given up, or its lease is over, and it is not known to be gone.
	GripSlipping
)

// Grip returns what this node has in its hands after the last step.
func (m *Machine) Grip() Grip {
	grip := GripNone
	for _, h := range m.held {
		switch {
		case h.phase == releasing || h.phase <= probing:
		case h.claiming() && m.now.Before(h.lease):
			grip = max(grip, GripFirm)
		default:
			grip = GripSlipping
		}
	}
	return grip
}

// HostChanged says whether the machine itself is fit to own anything, MySQL and network apart.
type HostChanged struct {
	// Unfit says what is wrong; empty means nothing.
	Unfit string
}

func (HostChanged) event() {}
