package detector

import (
	"context"
	"fmt"
	"os"
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
func (p program) runs(ctx context.Context) int {
	if p.dir == nil {
		return 0
	}
	all, _ := allProcesses(ctx)
	for _, o := range all {
		if o.name != p.name {
			continue
		}
		if dir, err := os.Stat(fmt.Sprintf("/proc/%d/cwd", o.pid)); err == nil && os.SameFile(dir, p.dir) {
			return o.pid
		}
	}
	return 0
}

// starting says of a server that nobody listens for whether its process runs all the same, as it does for minutes in a recovery
// after a crash. It has that looked for once in a while only, since it costs a look at every process of the machine, and not while
// the one that has just ended is replaced by another node. What it says is what was found by then; it does not wait.
func (p *processes) starting(now time.Time) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.watched == nil && now.Sub(p.soughtAt) >= statusEvery {
		p.soughtAt = now
		select {
		case p.looks <- struct{}{}:
		default: // the one before has not begun
		}
	}
	return p.sought
}

// look looks for a process of the server that is not watched, since it does not listen.
func (p *processes) look(ctx context.Context) {
	if p.watched != nil {
		return
	}
	text := ""
	if pid := p.last.runs(ctx); pid != 0 {
		text = fmt.Sprintf("%s (pid %d) runs and does not listen yet: it starts, or recovers from a crash; its error log says how far it is", p.last.name, pid)
	}
	p.mu.Lock()
	p.sought = text
	p.mu.Unlock()
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
