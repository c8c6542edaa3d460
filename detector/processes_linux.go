package detector

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// processes finds the server's process and keeps watch over it. One goroutine does the finding, which may take long on a
// busy machine, another one waits for the end.
type processes struct {
	probe time.Duration
	log   *slog.Logger
	tell  func(hint)
	// prepare is Config.PrepareHangUp.
	prepare func(netip.AddrPort, uint64) HangUp
	asks    chan endpoint
	paths   chan string
	looks   chan struct{} // see starting

	mu       sync.Mutex // held by run to set what follows, and by others to use it
	watched  *process
	sought   string    // what the last look for the next process of the server has found
	soughtAt time.Time // when that was asked for, or since when there is none

	// The rest belongs to run's goroutine.
	last   program // the one that was watched last
	now    key
	failed key // for what the search was in vain
	noted  string
}

// key is what a search depends on. Only another key is worth another search.
type key struct {
	endpoint endpoint
	doors    string // the inodes of the listening sockets, as text to be comparable
	path     string // of the server's unix socket
}

func newProcesses(probe time.Duration, log *slog.Logger, tell func(hint)) *processes {
	return &processes{probe: probe, log: log, tell: tell, asks: make(chan endpoint, 1), paths: make(chan string, 1), looks: make(chan struct{}, 1)}
}

// follow says that the server at e has just spoken. It does not wait.
func (p *processes) follow(e endpoint) { replace(p.asks, e) }

// socket says what the server calls its unix socket. It does not wait.
func (p *processes) socket(path string) { replace(p.paths, path) }

// replace puts v into a channel of one place, instead of what is there. Only one goroutine may put.
func replace[T any](ch chan T, v T) {
	select {
	case <-ch:
	default:
	}
	ch <- v
}

func (p *processes) run(ctx context.Context) {
	defer p.unwatch()
	for {
		var ended <-chan struct{}
		if p.watched != nil {
			ended = p.watched.ended
		}
		select {
		case <-ctx.Done():
			return
		case <-ended:
			p.unwatch()
		case p.now.path = <-p.paths:
			p.search(ctx)
		case p.now.endpoint = <-p.asks:
			p.search(ctx)
		case <-p.looks:
			p.look(ctx)
		}
	}
}

// search makes sure that the process behind the last endpoint is the one that is watched.
func (p *processes) search(ctx context.Context) {
	if p.now.endpoint == (endpoint{}) {
		return
	}
	inodes, err := doors(p.now.endpoint)
	p.now.doors = fmt.Sprint(inodes)
	if err != nil {
		p.fail(err)
		return
	}
	if p.watched != nil && p.watched.endpoint == p.now.endpoint && p.watched.doors == p.now.doors || p.failed == p.now {
		return
	}
	pid, err := findOwner(ctx, p.now.endpoint, inodes, p.now.path)
	if err != nil {
		p.fail(err)
		return
	}
	w, err := openProcess(pid, p.probe)
	if err != nil {
		p.fail(err)
		return
	}
	p.unwatch()
	w.key = p.now
	p.prepareHangUp(ctx, w)
	p.failed, p.noted = key{}, ""
	p.last = newProgram(w.pid, w.name)
	p.mu.Lock()
	p.watched, p.sought = w, ""
	p.mu.Unlock()
	p.log.Info("watching the server's process", "pid", w.pid, "name", w.name, "by", w.means())
	go w.watch(p.tell)
}

// prepareHangUp finds out what is to be closed when a process ends. That it can not costs some clients a wait.
func (p *processes) prepareHangUp(ctx context.Context, w *process) {
	if p.prepare == nil {
		return
	}
	sockets, err := closing(ctx, w.pid)
	if err != nil {
		p.log.Info("clients that the server lets in while it ends will not be reset at once", "pid", w.pid, "reason", err)
		return
	}
	for _, s := range sockets {
		if h := p.prepare(s.local, s.inode); h != nil {
			w.lines = append(w.lines, h)
		}
	}
	w.hangUp = sync.OnceFunc(func() {
		for _, h := range w.lines {
			h.Do()
		}
	})
}

// fail remembers that there is no process to watch, and logs it once.
func (p *processes) fail(err error) {
	p.unwatch()
	p.failed = p.now
	if p.noted != err.Error() {
		p.noted = err.Error()
		p.log.Warn("the end of the server's process will be noticed late, by its sockets alone", "reason", err)
	}
}

func (p *processes) unwatch() {
	w := p.watched
	if w == nil {
		return
	}
	w.stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watched, p.soughtAt = nil, time.Now()
	w.release()
}

// dying says how the server's process ends, if its flags tell so now, and hangs up then. It is cheap and does not wait.
func (p *processes) dying() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.watched == nil {
		return ""
	}
	reason := p.watched.flagged()
	if reason != "" {
		p.watched.hangUp()
	}
	return reason
}
