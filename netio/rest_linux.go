package netio

import "time"

const (
	// restAfter is how many addresses are worked on without a rest: for two milliseconds.
	restAfter = 64
	// restFor is long enough for what has waited meanwhile: a turn of the loop, a report. The answer to one that goes out in a
	// rest is taken in the next, a millisecond or two later.
	restFor = 100 * time.Microsecond
)

// rest lets others have the processor if done, how many addresses have been worked on, is a multiple of restAfter. The Go
// scheduler, which has one processor in a daemon, takes it from nobody who makes one short system call after the other, and does
// not look what has come from the network meanwhile. A lease of some milliseconds ends within the time that a thousand
// addresses take. Announcements have a [Pace] for the sake of their receivers, which does the same.
func rest(done int) {
	if done == 0 || done%restAfter != 0 {
		return
	}
	alarm, err := NewAlarm()
	if err != nil { // too many open files
		time.Sleep(restFor)
		return
	}
	defer alarm.Stop()
	alarm.Reset(restFor)
	<-alarm.C()
}
