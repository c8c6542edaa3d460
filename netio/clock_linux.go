package netio

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/remora-ha/remora/core"
)

// Boottime reads CLOCK_BOOTTIME, which is monotonic and goes on while the machine sleeps.
func Boottime() core.Instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(fmt.Sprintf("netio: clock_gettime(CLOCK_BOOTTIME): %v", err)) // Linux has had it since 2.6.39
	}
	return core.Instant(ts.Nano())
}
