package realtime

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Lock says what is to be locked in memory.
type Lock string

// The choices.
const (
	LockNothing Lock = "off"
	// LockTouched locks each page once it was used. The Go runtime reserves far more address space than it uses, all of which
	// [LockAll] would make real.
	LockTouched Lock = "touched"
	LockAll     Lock = "all"
)

// LockMemory locks the present and all future pages of the process. It returns what is locked now.
func LockMemory(l Lock) (Lock, error) {
	if l == LockNothing {
		return LockNothing, nil
	}
	if err := mayLock(); err != nil {
		return LockNothing, err
	}
	flags := unix.MCL_CURRENT | unix.MCL_FUTURE
	if l == LockTouched {
		flags |= unix.MCL_ONFAULT
	}
	if err := unix.Mlockall(flags); err != nil {
		return LockNothing, fmt.Errorf("lock the memory of the process (mlockall): %w: give the service LimitMEMLOCK=infinity or CAP_IPC_LOCK", err)
	}
	return l, nil
}

// Prefault touches as much heap as the collector lets a small program grow to before its first collection, and gives it back
// to the runtime. After that the program runs in pages that it has had before. Call it when memory is locked, since else the
// runtime would return them to the kernel.
func Prefault(bytes int) {
	const piece = 8 << 10 // a page of the runtime's own, so that whole spans come free
	pieces := make([][]byte, bytes/piece)
	for i := range pieces {
		pieces[i] = make([]byte, piece)
		pieces[i][0], pieces[i][piece/2] = 1, 1 // both pages of the kernel
	}
	runtime.KeepAlive(pieces)
	runtime.GC()
}

// mayLock returns an error if locking would succeed now and fail later. Under a limit the kernel refuses each further
// mapping with EAGAIN once the limit is reached, which the Go runtime takes for the end of memory and of the process.
func mayLock() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return fmt.Errorf("read the limit of locked memory: %w", err)
	}
	if limit.Cur == unix.RLIM_INFINITY {
		return nil
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return fmt.Errorf("read the capabilities of the process: %w", err)
	}
	if data[0].Effective&(1<<unix.CAP_IPC_LOCK) != 0 {
		return nil
	}
	return fmt.Errorf("memory is not locked: %w", errLimit{limit.Cur})
}

// ErrLimit is the class of the error that says that the limit of locked memory is too low.
var ErrLimit = errors.New("the limit of locked memory would end the process later")

type errLimit struct{ bytes uint64 }

func (e errLimit) Error() string {
	return fmt.Sprintf("%v (it is %d bytes): give the service LimitMEMLOCK=infinity or CAP_IPC_LOCK, or set lock_memory = \"off\"", ErrLimit, e.bytes)
}

func (e errLimit) Unwrap() error { return ErrLimit }
