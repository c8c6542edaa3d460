package lab

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// caller speaks to nodes below IP: it takes turns, in each of which it sends frames, and takes the frames that come. It has a
// thread of its own, of raised priority.
type caller struct {
	sock, timer int
	stop        stopper
	once        sync.Once

	mu  sync.Mutex
	err error // why it has ended by itself
}

// open makes the packet socket, which takes what the filter passes, and the timer of the turns. The calling thread must be in
// the client's namespace. What it has made when it fails is closed.
func (c *caller) open(interval time.Duration, filter *unix.SockFprog, buffer int) (err error) {
	c.sock, c.timer = -1, -1
	defer func() {
		if err != nil {
			c.closeFDs()
		}
	}()
	index, err := net.InterfaceByName(Interface)
	if err != nil {
		return fmt.Errorf("find the client's interface: %w", err)
	}
	const none = 0 // no frames before the filter is there
	if c.sock, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, none); err != nil {
		return fmt.Errorf("open a packet socket: %w", err)
	}
	err = errors.Join(
		unix.SetsockoptSockFprog(c.sock, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, filter),
		unix.SetsockoptInt(c.sock, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptInt(c.sock, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer),
		unix.SetsockoptInt(c.sock, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.Bind(c.sock, &unix.SockaddrLinklayer{Protocol: bigEndian16(unix.ETH_P_ALL), Ifindex: index.Index}))
	if err != nil {
		return fmt.Errorf("set up the packet socket: %w", err)
	}
	if c.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err != nil {
		return fmt.Errorf("make a timer: %w", err)
	}
	every := unix.NsecToTimespec(interval.Nanoseconds())
	if err := unix.TimerfdSettime(c.timer, 0, &unix.ItimerSpec{Interval: every, Value: every}, nil); err != nil {
		return fmt.Errorf("start the timer: %w", err)
	}
	return c.stop.open()
}

// run takes frames and turns until Stop, or until one of the two fails. take must not keep the frame.
func (c *caller) run(what string, take func(frame []byte, at time.Time) error, turn func() error) {
	defer c.stop.finished()
	runtime.LockOSThread() // for good: the raised priority ends with the thread
	raisePriority()
	if err := c.loop(take, turn); err != nil {
		c.mu.Lock()
		c.err = fmt.Errorf("%s: %w", what, err)
		c.mu.Unlock()
	}
}

func (c *caller) loop(take func([]byte, time.Time) error, turn func() error) error {
	fds := []unix.PollFd{{Fd: int32(c.stop.fd), Events: unix.POLLIN}, {Fd: int32(c.sock), Events: unix.POLLIN},
		{Fd: int32(c.timer), Events: unix.POLLIN}}
	buf, oob := make([]byte, 2048), make([]byte, 256)
	for {
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait: %w", err)
		}
		if fds[0].Revents != 0 {
			return nil
		}
		for more := true; more; {
			var err error
			if more, err = c.receive(buf, oob, take); err != nil {
				return err
			}
		}
		if n, err := unix.Read(c.timer, buf[:8]); err != nil || n != 8 {
			continue
		}
		if err := turn(); err != nil {
			return err
		}
	}
}

// receive takes one frame and reports whether there may be more.
func (c *caller) receive(buf, oob []byte, take func([]byte, time.Time) error) (bool, error) {
	n, oobn, _, _, err := unix.Recvmsg(c.sock, buf, oob, 0)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return false, nil
	case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENETDOWN):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("receive: %w", err)
	}
	return true, take(buf[:n], kernelTime(oob[:oobn]))
}

// send sends a frame. A full queue or a link that is down costs the frame.
func (c *caller) send(frame []byte) error {
	_, err := unix.Write(c.sock, frame)
	if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ENETDOWN) {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// Stop ends it. It may be called again.
func (c *caller) Stop() {
	c.once.Do(func() {
		c.stop.stop()
		c.closeFDs()
	})
}

func (c *caller) closeFDs() {
	for _, fd := range []int{c.sock, c.timer} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}
