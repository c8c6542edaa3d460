package sim

import "github.com/remora-ha/remora/core"

// Break is a rule of the protocol that is broken on purpose, by changing what passes between the machine and the world.
// It shows that an oracle would see it.
type Break uint8

// The broken rules.
const (
	Nothing Break = iota
	ReleaseBeforeUnbind
	KeepLeftovers
	ClaimLate
)

func (b Break) event(p *process, ev core.Event) core.Event                             { return ev }
func (b Break) actions(p *process, now core.Instant, acts []core.Action) []core.Action { return acts }
func (b Break) message(p *process, m core.Message) core.Message                        { return m }
func (b Break) command(p *process, c core.Command) core.Command                        { return c }
func (b Break) afterwards(p *process, ev core.Event)                                   {}
