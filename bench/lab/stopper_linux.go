package lab

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// stopper ends a thread that waits for a file descriptor.
type stopper struct {
	fd   int
	done chan struct{}
}

func (s *stopper) open() error {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("make an eventfd: %w", err)
	}
	s.fd, s.done = fd, make(chan struct{})
	return nil
}

// wait waits until sock can be read and returns false once stop was called.
func (s *stopper) wait(sock int) bool {
	fds := []unix.PollFd{{Fd: int32(sock), Events: unix.POLLIN}, {Fd: int32(s.fd), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil || fds[1].Revents != 0:
			return false
		}
		return true
	}
}

// stop ends the wait and returns when finished was called.
func (s *stopper) stop() {
	unix.Write(s.fd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	<-s.done
	unix.Close(s.fd)
}

func (s *stopper) finished() { close(s.done) }

// raisePriority lets the calling thread run as soon as it is woken (SCHED_RR at the lowest priority): an observer that
// has to queue behind what it observes stamps late. Where that is refused the observer is less precise, no more.
func raisePriority() {
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 1}
	if err := unix.SchedSetAttr(0, &attr, 0); err != nil {
		return
	}
}
