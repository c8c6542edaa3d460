package detector

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// program is what a server's process can be known by when it was started again: its name, and the directory that it is in, which
// is the data directory.
type program struct {
	name string
	dir  os.FileInfo
}

// newProgram looks at a process. Without a directory it is known by nothing.
func newProgram(pid int, name string) program {
	dir, err := os.Stat(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil {
		return program{}
	}
	return program{name, dir}
}

// runs returns the number of a process that is this program, 0 if there is none.
func (p program) runs() int {
	if p.dir == nil {
		return 0
	}
	comms, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, file := range comms {
		b, err := os.ReadFile(file)
		if err != nil || strings.TrimSuffix(string(b), "\n") != p.name {
			continue
		}
		proc := filepath.Dir(file)
		if dir, err := os.Stat(proc + "/cwd"); err == nil && os.SameFile(dir, p.dir) {
			pid, _ := strconv.Atoi(filepath.Base(proc))
			return pid
		}
	}
	return 0
}

// starting says of a server that nobody listens for whether its process runs all the same, as it does for minutes in a recovery
// after a crash. It looks once in a while only: that costs a look at every process of the machine.
func (p *processes) starting(now time.Time) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.watched == nil && now.Sub(p.soughtAt) >= statusEvery {
		p.soughtAt, p.sought = now, ""
		if pid := p.last.runs(); pid != 0 {
			p.sought = fmt.Sprintf("%s (pid %d) runs and does not listen yet: it starts, or recovers from a crash; its error log says how far it is", p.last.name, pid)
		}
	}
	return p.sought
}

// pid is the number of the process under watch, 0 if there is none.
func (p *processes) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.watched == nil {
		return 0
	}
	return p.watched.pid
}
