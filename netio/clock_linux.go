package netio

import (
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/remora-ha/remora/core"
)

// Boottime reads CLOCK_BOOTTIME, which is monotonic and goes on while the machine sleeps.
func Boottime() core.Instant { return core.Instant(readClock(unix.CLOCK_BOOTTIME)) }

// readClock makes a raw call: the clock is read at every step, the call never blocks, and an ordinary system call would
// wake the Go scheduler's monitor each time, which costs more than the call.
func readClock(id uintptr) int64 {
	var ts unix.Timespec
	if _, _, err := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, id, uintptr(unsafe.Pointer(&ts)), 0); err != 0 {
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

// epoch is a moment by the Go runtime's clock, which is CLOCK_MONOTONIC read without a system call, and epochKernel what the kernel
// says of that clock then.
var epochKernel, epoch = readTogether()

func readTogether() (kernel int64, runtime time.Time) {
	for range asleepTries {
		before, now, after := readClock(unix.CLOCK_MONOTONIC), time.Now(), readClock(unix.CLOCK_MONOTONIC)
		if kernel, runtime = before, now; after-before < int64(asleepExact) {
			break
		}
	}
	return kernel, runtime
}

// monotonic reads CLOCK_MONOTONIC without a system call. It may be wrong by what lay between the two readings of the epoch, always
// by the same.
func monotonic() int64 { return epochKernel + int64(time.Since(epoch)) }

// Asleep returns how long the machine has been suspended since it was booted: CLOCK_BOOTTIME counts that time and
// CLOCK_MONOTONIC does not. ok is false when this process was interrupted so often that the two could not be read
// together.
func Asleep() (d time.Duration, ok bool) {
	for range asleepTries {
		before, boot, after := monotonic(), readClock(unix.CLOCK_BOOTTIME), monotonic()
		if after-before < int64(asleepExact) {
			return time.Duration(boot - before), true
		}
	}
	return 0, false
}
