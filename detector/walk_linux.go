package detector

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	// walkAtOnce is how many processes are looked at without a rest: for a millisecond or so.
	walkAtOnce = 8
	// walkRest lets everything else in the daemon have its turn.
	walkRest = 500 * time.Microsecond
)

// numbered is a process with the name of its program.
type numbered struct {
	pid  int
	name string
}

// allProcesses lists the processes that are visible to us, in the order of their numbers as a rule, until ctx is done. It rests
// now and then: the kernel takes a tenth of a millisecond for each process, a machine may have thousands, and the Go scheduler has
// one processor in a daemon, which it takes from nobody who makes one short system call after the other. Reports and Acks, on
// which leases live, wait no longer than for walkAtOnce processes so.
func allProcesses(ctx context.Context) (all []numbered, err error) {
	names, err := namesIn("/proc")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if len(all)%walkAtOnce == walkAtOnce-1 {
			pause(ctx, walkRest)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
		}
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)) // it may have ended
		all = append(all, numbered{pid, strings.TrimSuffix(string(comm), "\n")})
	}
	return all, nil
}

// namesIn lists a directory of /proc, in the kernel's order.
func namesIn(path string) ([]string, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Readdirnames(-1)
}
