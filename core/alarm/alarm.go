// Package alarm is the timer that the loops of a daemon wait for. Its kind can be chosen: what costs an idle daemon most
// is waking up, and the Go runtime wakes a process several times for one of its own timers.
package alarm

import "time"

// Alarm is a timer that is set again and again.
type Alarm interface {
	// C has a value once the time set by the last Reset is over. A value from before that may still be there.
	C() <-chan struct{}
	// Reset sets the alarm to d from now, in place of what it was set to. A d that is not positive means at once.
	Reset(d time.Duration)
	// Stop ends the alarm. Nothing may be done with it afterwards.
	Stop()
}

// Maker makes alarms. A nil Maker makes those of the Go runtime.
type Maker func() (Alarm, error)

// New returns an alarm that is not set.
func (m Maker) New() (Alarm, error) {
	if m == nil {
		return newTimer(), nil
	}
	return m()
}

// timer is an alarm of the Go runtime.
type timer struct {
	c chan struct{}
	t *time.Timer
}

func newTimer() *timer {
	c := make(chan struct{}, 1)
	t := &timer{c: c, t: time.AfterFunc(time.Hour, func() {
		select {
		case c <- struct{}{}:
		default: // the one before was not taken yet
		}
	})}
	t.t.Stop()
	return t
}

func (t *timer) C() <-chan struct{}    { return t.c }
func (t *timer) Reset(d time.Duration) { t.t.Reset(d) }
func (t *timer) Stop()                 { t.t.Stop() }
