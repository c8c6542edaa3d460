package mha

// Exit is a hook's exit code as MHA reads it.
type Exit int

// What MHA makes of exit codes, by its masterFailover and masterRotate code as run against 0.58.
const (
	// OK lets MHA go on.
	OK Exit = 0
	// Abort, like every code but 0 and 10, makes MHA give up: after a failover's stop or start nobody is writable then.
	Abort Exit = 1
	// Proceed lets MHA go on after stop and start, with a warning. For status it is a failure.
	Proceed Exit = 10
)

// Outcome is what became of a start, as far as it decides the exit code.
type Outcome uint8

// The outcomes of a start.
const (
	// Seen: bound, announced, and a peer on the link sees the new owner's hardware address.
	Seen Outcome = iota + 1
	// Unseen: bound and announced, but no peer has confirmed it in time.
	Unseen
	// Unfit: nobody holds the address, and the new primary could not be given it. MHA shall make it writable all the same;
	// the group's policy brings the address to it then.
	Unfit
	// Refused: the advice is wrong, or somebody else serves. A second writable server would be the worst end.
	Refused
)

// Of returns the exit code of a start.
func (o Outcome) Of() Exit {
	switch o {
	case Seen:
		return OK
	case Unseen, Unfit:
		return Proceed
	default:
		return Abort
	}
}
