package realtime

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Class is a scheduling class.
type Class string

// The classes. Inherit leaves what the process was started with.
const (
	Inherit Class = "inherit"
	Nice    Class = "nice"
	RR      Class = "rr"
	FIFO    Class = "fifo"
)

// niceFallback is what a process gives itself that may not be a real-time one.
const niceFallback = -15

// Schedule puts all threads of the process into a class; those that come later inherit it. A nice value is also that of the
// session, if the process leads it. If a real-time class can not be had it tries a nice value instead. It returns what the process has now, in words, and an error if that is not what was
// asked for.
func Schedule(class Class, priority int) (string, error) {
	switch class {
	case Nice:
		if err := allThreads(func(tid int) error { return unix.Setpriority(unix.PRIO_PROCESS, tid, priority) }); err != nil {
			return current(), fmt.Errorf("set the nice value to %d: %w: give the service LimitNICE= or CAP_SYS_NICE, or Nice=%d in its unit", priority, err, priority)
		}
		return current(), niceSession(priority)
	case RR, FIFO:
		err := allThreads(func(tid int) error { return setRealtime(tid, class, priority) })
		if err == nil {
			return current(), nil
		}
		err = fmt.Errorf("take real-time class %s with priority %d: %w: give the service LimitRTPRIO=%d (or CAP_SYS_NICE) and RestrictRealtime=no",
			class, priority, err, priority)
		if nice, _ := nice(0); nice > niceFallback {
			_ = allThreads(func(tid int) error { return unix.Setpriority(unix.PRIO_PROCESS, tid, niceFallback) }) // what came of it is told
		}
		err = errors.Join(err, niceSession(niceFallback))
		return current(), err
	}
	return current(), nil
}

func setRealtime(tid int, class Class, priority int) error {
	a := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: uint32(priority)}
	if class == FIFO {
		a.Policy = unix.SCHED_FIFO
	}
	return unix.SchedSetAttr(tid, &a, 0)
}

// allThreads does something to every thread, and to those that were made meanwhile by one that it was not done to yet.
func allThreads(f func(tid int) error) error {
	done := map[int]bool{}
	for {
		tids, err := threads()
		if err != nil {
			return err
		}
		news := 0
		for _, tid := range tids {
			if done[tid] {
				continue
			}
			if err := f(tid); err != nil && !errors.Is(err, unix.ESRCH) { // a thread that has ended needs nothing
				return err
			}
			done[tid] = true
			news++
		}
		if news == 0 {
			return nil
		}
	}
}

func threads() ([]int, error) {
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return nil, fmt.Errorf("list the threads of the process: %w", err)
	}
	var tids []int
	for _, e := range entries {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			return nil, fmt.Errorf("list the threads of the process: %w", err)
		}
		tids = append(tids, tid)
	}
	return tids, nil
}

// nice returns the nice value of a thread. The raw system call returns 20 minus that (getpriority(2)).
func nice(tid int) (int, error) {
	raw, err := unix.Getpriority(unix.PRIO_PROCESS, tid)
	return 20 - raw, err
}

// current tells the scheduling of the calling thread in words.
func current() string {
	a, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return "unknown"
	}
	switch a.Policy {
	case unix.SCHED_RR:
		return fmt.Sprintf("rr:%d", a.Priority)
	case unix.SCHED_FIFO:
		return fmt.Sprintf("fifo:%d", a.Priority)
	}
	return fmt.Sprintf("nice:%d", a.Nice)
}
