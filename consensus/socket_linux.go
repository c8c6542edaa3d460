package consensus

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lock takes an exclusive lock on a file, which the kernel drops when the process ends.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the state directory: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("%w (%s): stop that one, or give this one a state directory of its own", ErrInUse, path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// tcpRTOMin is TCP_RTO_MIN_US of include/uapi/linux/tcp.h, Linux 6.15 and later.
const tcpRTOMin = 45

// tuneTCP makes the kernel notice a vanished peer quickly: unacknowledged data fails after silence, and an idle
// connection is probed each second. Where the kernel can, a lost segment is sent again after rto and not only after
// 200 ms.
func tuneTCP(c syscall.RawConn, silence, rto time.Duration) error {
	var err error
	ctl := c.Control(func(fd uintptr) {
		set := func(opt, v int) {
			if err == nil {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, opt, v)
			}
		}
		set(unix.TCP_NODELAY, 1)
		set(unix.TCP_USER_TIMEOUT, int(silence.Milliseconds()))
		set(unix.TCP_KEEPIDLE, 1)
		set(unix.TCP_KEEPINTVL, 1)
		set(unix.TCP_KEEPCNT, 3)
		if err == nil {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
		}
		// An older kernel does not know this one and is only slower without it.
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, tcpRTOMin, int(rto.Microseconds()))
	})
	return errors.Join(ctl, err)
}

// sendNow sends a datagram if the kernel takes it at once, and drops it otherwise.
func sendNow(c *net.UDPConn, raw syscall.RawConn, b []byte, to netip.AddrPort) error {
	sa, err := sockaddr(c, to)
	if err != nil {
		return err
	}
	var sent error
	err = raw.Write(func(fd uintptr) bool {
		sent = unix.Sendto(int(fd), b, unix.MSG_DONTWAIT, sa)
		return true
	})
	return errors.Join(err, sent)
}

// sockaddr returns the address in the family of the socket.
func sockaddr(c *net.UDPConn, to netip.AddrPort) (unix.Sockaddr, error) {
	local := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
	if local.Is4() && to.Addr().Unmap().Is4() {
		return &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().Unmap().As4()}, nil
	}
	if local.Is4() {
		return nil, fmt.Errorf("send to %v from a socket on %v: %w", to, local, unix.EAFNOSUPPORT)
	}
	return &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}, nil
}
