package netio

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-ha/remora/core"
)

// Boottime reads CLOCK_BOOTTIME, which is monotonic and goes on while the machine sleeps.
func Boottime() core.Instant { return core.Instant(readClock(unix.CLOCK_BOOTTIME)) }

func readClock(id int32) int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		panic(fmt.Sprintf("netio: clock_gettime(%d): %v", id, err)) // Linux has had CLOCK_BOOTTIME since 2.6.39
	}
	return ts.Nano()
}

// asleepTries bounds how often Asleep reads the clocks anew because it was interrupted between them, asleepExact is how
// far apart its readings may be.
const (
	asleepTries = 8
	asleepExact = 100 * time.Microsecond
)

// Asleep returns how long the machine has been suspended since it was booted: CLOCK_BOOTTIME counts that time and
// CLOCK_MONOTONIC does not. ok is false when this process was interrupted so often that the two could not be read
// together.
func Asleep() (d time.Duration, ok bool) {
	for range asleepTries {
		before, boot, after := readClock(unix.CLOCK_MONOTONIC), readClock(unix.CLOCK_BOOTTIME), readClock(unix.CLOCK_MONOTONIC)
		if after-before < int64(asleepExact) {
			return time.Duration(boot - before), true
		}
	}
	return 0, false
}
