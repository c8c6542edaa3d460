package daemon

import (
	"log/slog"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-ha/remora/core/alarm"
	"github.com/remora-ha/remora/netio"
)

// A daemon wakes some hundred times a second for tens of microseconds of work. What it costs is the waking, of itself and
// of the Go runtime's threads.

// timerSlack is how late the kernel may let a sleep of this process end. The Go scheduler's monitor looks after the
// others every 20 us for as long as there is work, and most work here is done within this time. It takes the processor
// from a goroutine whose system call blocks; that is as much later now. A planned switchover, which waits for the disks of
// three nodes twice, takes as long with it as without.
const timerSlack = time.Millisecond

// beThrifty keeps the Go scheduler on one processor, unless GOMAXPROCS says otherwise: waking a second thread to share
// the work costs twice what the work does, and makes each answer later. A system call that blocks takes nothing from the
// others, unless it is a raw one: the scheduler goes on without it. And it sets the timer slack of all threads, prctl(2); later threads inherit
// it.
func beThrifty(log *slog.Logger) {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
	// It can not be done in a binary that is built with cgo, as the race detector's are. That only costs time.
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, uintptr(timerSlack.Nanoseconds()), 0); errno != 0 {
		log.Debug("the kernel's timer slack is not set", "error", errno)
	}
}

// newAlarm makes the timers of the loops.
func newAlarm() (alarm.Alarm, error) { return netio.NewAlarm() }
