package realtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	autogroupFile = "/proc/self/autogroup"
	// The kernel takes one change in 100 ms from all who may not administer the system.
	sessionTries = 5
	sessionPause = 110 * time.Millisecond
)

// niceSession gives the process's session a nice value, if it leads the session, as a service does, and has no lower one. Where the
// kernel shares the processors out by sessions (sched(7), "The autogroup feature"), those of processes count within a session only:
// without this a daemon of -15 gets as much as any busy service, and waits as long.
func niceSession(value int) error {
	sid, err := unix.Getsid(0)
	if err != nil || sid != os.Getpid() {
		return err // a session that others are in, too, is not the daemon's to change
	}
	text, err := os.ReadFile(autogroupFile)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(text) == 0 {
		return nil // this kernel, or this process, knows no such groups
	}
	var group, have int
	if err == nil {
		_, err = fmt.Sscanf(string(text), "/autogroup-%d nice %d", &group, &have)
	}
	if err != nil {
		return fmt.Errorf("read the session's nice value in %s: %w", autogroupFile, err)
	}
	if have <= value {
		return nil
	}
	for range sessionTries {
		if err = os.WriteFile(autogroupFile, []byte(strconv.Itoa(value)), 0); !errors.Is(err, unix.EAGAIN) {
			break
		}
		time.Sleep(sessionPause)
	}
	if err != nil {
		return fmt.Errorf("set the session's nice value to %d in %s: %w: give the service LimitNICE=%d or CAP_SYS_NICE", value, autogroupFile, err, value)
	}
	return nil
}
