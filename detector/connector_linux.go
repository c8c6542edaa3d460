package detector

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// connector is a socket that gets the exit events of one process.
type connector struct {
	fd  int
	pid int
}

// openConnector asks the kernel for exit events. It fails outside the initial network namespace and without
// CAP_NET_ADMIN, where the kernel refuses, or does not answer.
func openConnector(pid int) (*connector, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_CONNECTOR)
	if err != nil {
		return nil, fmt.Errorf("process connector: socket: %w", err)
	}
	c := &connector{fd: fd, pid: pid}
	if err := c.subscribe(); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("process connector: %w", err)
	}
	return c, nil
}

func (c *connector) subscribe() error {
	if err := unix.Bind(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: cnIndexProc}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	if err := c.send(procListen); err != nil {
		return err
	}
	if err := c.confirmed(); err != nil {
		return err
	}
	filter, err := exitFilter(c.pid)
	if err != nil {
		return fmt.Errorf("filter: %w", err)
	}
	prog := make([]unix.SockFilter, len(filter))
	for i, f := range filter {
		prog[i] = unix.SockFilter{Code: f.Op, Jt: f.Jt, Jf: f.Jf, K: f.K}
	}
	fprog := &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	if err := unix.SetsockoptSockFprog(c.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, fprog); err != nil {
		return fmt.Errorf("attach filter: %w", err)
	}
	return nil
}

func (c *connector) send(op uint32) error {
	if err := unix.Sendto(c.fd, controlMessage(op), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// confirmed waits for the kernel's acknowledgement: a kernel that does not serve our namespaces may say nothing at all.
func (c *connector) confirmed() error {
	b := make([]byte, 256)
	for end := time.Now().Add(50 * time.Millisecond); ; {
		n, _, err := unix.Recvfrom(c.fd, b, 0)
		switch {
		case err == nil:
			if errno, ok := parseAck(b[:n]); ok && errno == 0 {
				return nil
			} else if ok {
				return fmt.Errorf("subscribe: %w", unix.Errno(errno))
			}
		case errors.Is(err, unix.EAGAIN):
			left := time.Until(end).Milliseconds()
			if left <= 0 {
				return fmt.Errorf("subscribe: %w", os.ErrDeadlineExceeded)
			}
			unix.Poll([]unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}, int(left))
		default:
			return fmt.Errorf("receive: %w", err)
		}
	}
}

// killed reads what has arrived. It returns the signal if a thread of the process was ended by one, which always ends
// the whole process.
func (c *connector) killed() (signal int) {
	b := make([]byte, 256)
	for {
		n, _, err := unix.Recvfrom(c.fd, b, 0)
		if err != nil {
			return signal
		}
		if e, ok := parseExit(b[:n]); ok && e.pid == c.pid && signalOf(e.status) != 0 {
			signal = signalOf(e.status)
		}
	}
}

// close unsubscribes: kernels before 6.6 count listeners and do not notice a closed socket.
func (c *connector) close() {
	c.send(procIgnore)
	unix.Close(c.fd)
}
