package detector

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
)

// threadsLooked is how many threads of a server are looked at, at a few microseconds each.
const threadsLooked = 512

// starved reports whether a thread of the server's process is ready to run while more threads beside our own are than there are
// processors. This daemon may well be punctual then, by its nice value or scheduling class, and see nothing of it by itself.
// A server that is stopped, or whose threads all wait for something else, is not starved.
func (p *processes) starved() bool {
	p.mu.Lock()
	w := p.watched
	p.mu.Unlock()
	if w == nil {
		return false
	}
	load, err := os.ReadFile("/proc/loadavg")
	return err == nil && crowded(load, runtime.NumCPU()) && ready(w.pid)
}

// crowded reports whether more threads want to run than there are processors, not counting our own, which has read the text of
// /proc/loadavg. Where there are no more of them a thread that is ready gets its processor.
func crowded(loadavg []byte, processors int) bool { return runnable(loadavg)-1 > processors }

// runnable reads the number of threads that run or are ready to from the text of /proc/loadavg (proc_loadavg(5)): 0 if it
// does not say.
func runnable(loadavg []byte) int {
	f := bytes.Fields(loadavg)
	if len(f) < 4 {
		return 0
	}
	now, _, _ := bytes.Cut(f[3], []byte{'/'})
	n, err := strconv.Atoi(string(now))
	if err != nil {
		return 0
	}
	return n
}

// ready reports whether a thread of a process runs or is ready to.
func ready(pid int) bool {
	tasks := fmt.Sprintf("/proc/%d/task", pid)
	d, err := os.Open(tasks)
	if err != nil {
		return false
	}
	defer d.Close()
	names, _ := d.Readdirnames(threadsLooked) // what it has read before an error counts
	for _, tid := range names {
		b, err := os.ReadFile(tasks + "/" + tid + "/stat")
		if err != nil {
			continue // it has ended
		}
		if s, err := parseStat(b); err == nil && s.state == 'R' {
			return true
		}
	}
	return false
}
