package detector

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// poller waits for events on file descriptors. It is an epoll instance of our own, waited for through the runtime's
// poller: a blocking poll(2) would keep a thread, and worse, keep the Go scheduler's monitor awake, which costs more than
// all the probes.
type poller struct {
	file *os.File
	raw  syscall.RawConn
	fd   int
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("epoll: %w", err)
	}
	p := &poller{file: os.NewFile(uintptr(fd), "epoll"), fd: fd}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		p.close()
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return p, nil
}

// add watches fd for events (EPOLLIN, EPOLLRDHUP). A descriptor that is closed leaves by itself.
func (p *poller) add(fd int, events uint32) error {
	if err := unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// wait returns the descriptors that are ready: none when the time is over, os.ErrClosed after close. A wait of zero has
// no end.
func (p *poller) wait(d time.Duration) (ready []int, err error) {
	var deadline time.Time
	if d > 0 {
		deadline = time.Now().Add(d)
	}
	if err := p.file.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	var events [8]unix.EpollEvent
	err = p.raw.Read(func(fd uintptr) bool {
		n, _ := unix.EpollWait(int(fd), events[:], 0)
		for _, e := range events[:max(n, 0)] {
			ready = append(ready, int(e.Fd))
		}
		return n > 0
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, nil
	}
	return ready, err
}

// close ends a wait that is under way.
func (p *poller) close() { p.file.Close() }
