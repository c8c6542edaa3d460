package netio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Alarm is a timer that wakes the process once. It is a timerfd(2) that the Go runtime's poller waits for.
//
// For the end of a timer of its own the runtime wakes up three times: the poller, which counts in whole milliseconds and
// comes too early, the poller again, and the scheduler's monitor, which has another thread take over. To a daemon that
// does little else than wait for timers, that is most of its cost.
type Alarm struct {
	c    chan struct{}
	done chan struct{}
	file *os.File
	raw  syscall.RawConn

	mu   sync.Mutex
	spec unix.ItimerSpec  // what Reset sets
	set  func(fd uintptr) // settime, made once since each would be an allocation
}

// NewAlarm returns an Alarm that is not set. It fails only when the process has too many files open.
func NewAlarm() (*Alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("netio: timerfd_create: %w", err)
	}
	a := &Alarm{c: make(chan struct{}, 1), done: make(chan struct{}), file: os.NewFile(uintptr(fd), "timerfd")}
	if a.raw, err = a.file.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("netio: timerfd: %w", err), a.file.Close())
	}
	a.set = a.settime
	go a.wait()
	return a, nil
}

// C has a value once the time set by Reset is over. A value that was not taken before the next Reset may still be there.
func (a *Alarm) C() <-chan struct{} { return a.c }

// Reset sets the alarm to d from now, in place of what it was set to before. A d that is not positive means at once.
func (a *Alarm) Reset(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.spec.Value = unix.NsecToTimespec(max(int64(d), 1))
	_ = a.raw.Control(a.set) // fails only after Stop
}

func (a *Alarm) settime(fd uintptr) {
	// A raw call, since it never waits.
	_, _, errno := unix.RawSyscall6(unix.SYS_TIMERFD_SETTIME, fd, 0, uintptr(unsafe.Pointer(&a.spec)), 0, 0, 0)
	if errno != 0 {
		panic(fmt.Sprintf("netio: timerfd_settime(%v): %v", time.Duration(a.spec.Value.Nano()), errno)) // only a bad argument is refused
	}
}

// Stop ends the alarm; nothing rings any more when it has returned.
func (a *Alarm) Stop() {
	_ = a.file.Close()
	<-a.done
}

func (a *Alarm) wait() {
	defer close(a.done)
	var count [8]byte
	rang := func(fd uintptr) bool {
		n, _, _ := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&count)), uintptr(len(count)))
		return int(n) == len(count) && binary.NativeEndian.Uint64(count[:]) > 0
	}
	for {
		if err := a.raw.Read(rang); err != nil {
			return // closed
		}
		select {
		case a.c <- struct{}{}:
		default: // the one before was not taken yet
		}
	}
}
