package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"

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

// Datagrams are sent and received with raw system calls: neither waits (MSG_DONTWAIT), and an ordinary call would wake the
// Go scheduler's monitor thread, at every one of the few hundred datagrams a second, for longer than the call takes.

// sendNow sends a datagram if the kernel takes it at once, and drops it otherwise.
func sendNow(c *net.UDPConn, raw syscall.RawConn, b []byte, to netip.AddrPort) error {
	sa, size, err := sockaddr(c, to)
	if err != nil {
		return err
	}
	var errno unix.Errno
	err = raw.Write(func(fd uintptr) bool {
		_, _, errno = unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
			unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&sa)), size)
		return true
	})
	if err == nil && errno != 0 {
		err = fmt.Errorf("sendto: %w", errno)
	}
	return err
}

// receiveNext waits for the next datagram, in Go's poller, and returns its length.
func receiveNext(raw syscall.RawConn, b []byte) (int, error) {
	var n uintptr
	var errno unix.Errno
	err := raw.Read(func(fd uintptr) bool {
		n, _, errno = unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
			unix.MSG_DONTWAIT, 0, 0)
		return errno != unix.EAGAIN
	})
	if err == nil && errno != 0 {
		err = fmt.Errorf("recvfrom: %w", errno)
	}
	if err != nil {
		return 0, err
	}
	return int(n), nil
}

// sockaddr returns the address in the family of the socket, as the kernel reads it, and its size.
func sockaddr(c *net.UDPConn, to netip.AddrPort) (sa unix.RawSockaddrInet6, size uintptr, err error) {
	local := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
	ip := to.Addr().Unmap()
	switch {
	case local.Is4() && !ip.Is4():
		return sa, 0, fmt.Errorf("send to %v from a socket on %v: %w", to, local, unix.EAFNOSUPPORT)
	case local.Is4():
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&sa))
		*v4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: bigEndian(to.Port()), Addr: ip.As4()}
		return sa, unix.SizeofSockaddrInet4, nil
	}
	sa = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: bigEndian(to.Port()), Addr: to.Addr().As16()}
	return sa, unix.SizeofSockaddrInet6, nil
}

// bigEndian returns the number whose bytes in memory are those of v in network order.
func bigEndian(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}
