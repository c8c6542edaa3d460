package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
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

// udpSocket is the socket for datagrams. They are sent and received with raw system calls: neither waits (MSG_DONTWAIT),
// and an ordinary call would wake the Go scheduler's monitor, at every one of the few hundred datagrams a second, for
// longer than the call takes.
//
// The socket is not known to the Go runtime's poller, which would have the kernel wake the process also when a datagram
// has left, once for each that is sent. An epoll instance of its own is, which tells of arrivals only.
type udpSocket struct {
	local netip.AddrPort
	epoll *os.File
	ready syscall.RawConn

	mu sync.RWMutex // held for reading while fd is in use
	fd int          // -1 after close
}

// listenUDP binds a socket and asks the kernel for a receive buffer of the given size in bytes.
func listenUDP(at netip.AddrPort, buffer int) (*udpSocket, error) {
	s := &udpSocket{local: at, fd: -1}
	family := unix.AF_INET6
	if at.Addr().Unmap().Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s.fd = fd
	if err := s.setUp(buffer); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *udpSocket) setUp(buffer int) error {
	sa, size := s.sockaddr(s.local)
	if _, _, errno := unix.Syscall(unix.SYS_BIND, uintptr(s.fd), uintptr(unsafe.Pointer(&sa)), size); errno != 0 {
		return os.NewSyscallError("bind", errno)
	}
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(epoll, true); err != nil { // or the runtime would not poll it
		return errors.Join(os.NewSyscallError("fcntl", err), unix.Close(epoll))
	}
	s.epoll = os.NewFile(uintptr(epoll), "epoll")
	if s.ready, err = s.epoll.SyscallConn(); err != nil {
		return err
	}
	err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, s.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(s.fd)})
	return os.NewSyscallError("epoll_ctl", err)
}

// Close ends a Receive that waits, with net.ErrClosed.
func (s *udpSocket) Close() error {
	var errs []error
	if s.epoll != nil {
		errs = append(errs, s.epoll.Close()) // waits for a Receive, so it comes before the lock that a Receive takes
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd >= 0 {
		errs = append(errs, os.NewSyscallError("close", unix.Close(s.fd)))
		s.fd = -1
	}
	return errors.Join(errs...)
}

// SendNow sends a datagram if the kernel takes it at once, and drops it otherwise.
func (s *udpSocket) SendNow(b []byte, to netip.AddrPort) error {
	if s.local.Addr().Unmap().Is4() && !to.Addr().Unmap().Is4() {
		return fmt.Errorf("send to %v from a socket on %v: %w", to, s.local, unix.EAFNOSUPPORT)
	}
	sa, size := s.sockaddr(to)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.fd < 0 {
		return net.ErrClosed
	}
	_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
		unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&sa)), size)
	if errno != 0 {
		return os.NewSyscallError("sendto", errno)
	}
	return nil
}

// Receive waits for the next datagram and returns its length.
func (s *udpSocket) Receive(b []byte) (int, error) {
	var n uintptr
	var errno unix.Errno
	err := s.ready.Read(func(uintptr) bool {
		s.mu.RLock()
		defer s.mu.RUnlock()
		if s.fd < 0 {
			errno = unix.EBADF
			return true
		}
		n, _, errno = unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
			unix.MSG_DONTWAIT, 0, 0)
		return errno != unix.EAGAIN
	})
	switch {
	case err != nil || errno == unix.EBADF: // waiting in the poller fails only when it is closed
		return 0, net.ErrClosed
	case errno != 0:
		return 0, os.NewSyscallError("recvfrom", errno)
	}
	return int(n), nil
}

// sockaddr returns an address in the family of the socket, as the kernel reads it, and its size.
func (s *udpSocket) sockaddr(a netip.AddrPort) (sa unix.RawSockaddrInet6, size uintptr) {
	if s.local.Addr().Unmap().Is4() {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&sa))
		*v4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: bigEndian(a.Port()), Addr: a.Addr().Unmap().As4()}
		return sa, unix.SizeofSockaddrInet4
	}
	sa = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: bigEndian(a.Port()), Addr: a.Addr().As16(), Scope_id: scope(a.Addr())}
	return sa, unix.SizeofSockaddrInet6
}

// scope returns the index of a link-local address's interface, 0 if there is none.
func scope(a netip.Addr) uint32 {
	if a.Zone() == "" {
		return 0
	}
	if i, err := net.InterfaceByName(a.Zone()); err == nil {
		return uint32(i.Index)
	}
	return 0
}

// bigEndian returns the number whose bytes in memory are those of v in network order.
func bigEndian(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}
