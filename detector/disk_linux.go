package detector

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// roomNeeded is how much a file system of the server must have left, in bytes, not to be called full: a server whose disk is full
// goes on to answer, and lets each write wait, so that nothing else tells.
const roomNeeded = 32 << 20

// disks looks at the file systems that the server writes to. A look may take for ever, on a dead network file system, say, so it
// has a goroutine of its own, and there is one at a time.
type disks struct {
	mu      sync.Mutex
	looking bool
	alarm   string
}

// look begins to look, unless the look before has not ended yet. pid is the server's process, whose mounts count; 0 means that
// it is not known, and then neither is how full they are.
func (d *disks) look(pid int, dirs []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.looking {
		return
	}
	d.looking = true
	go func() {
		alarm := full(pid, dirs)
		d.mu.Lock()
		defer d.mu.Unlock()
		d.looking, d.alarm = false, alarm
	}()
}

// full returns an alarm for the first directory without room, or nothing.
func full(pid int, dirs []string) string {
	for _, dir := range dirs {
		if pid == 0 || dir == "" {
			continue
		}
		var st unix.Statfs_t
		err := unix.Statfs(fmt.Sprintf("/proc/%d/root%s", pid, dir), &st)
		for errors.Is(err, unix.EINTR) {
			err = unix.Statfs(fmt.Sprintf("/proc/%d/root%s", pid, dir), &st)
		}
		if err == nil && st.Bavail*uint64(st.Bsize) < roomNeeded {
			return fmt.Sprintf("the file system of %s has less than %d MiB left: the server's writes wait or fail until somebody makes room",
				filepath.Clean(dir), roomNeeded>>20)
		}
	}
	return ""
}

// told returns the alarm of the last look.
func (d *disks) told() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.alarm
}

// written are the directories that the server writes to as far as they matter: data and binary log.
func (d dialect) written() []string {
	dirs := []string{d.vars["datadir"]}
	if base := d.vars["log_bin_basename"]; filepath.IsAbs(base) {
		dirs = append(dirs, filepath.Dir(base))
	}
	return dirs
}
