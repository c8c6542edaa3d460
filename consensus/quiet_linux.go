package consensus

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// quietConn is a TCP connection that is read and written by raw system calls. They do not wait (MSG_DONTWAIT), and an
// ordinary one wakes the Go scheduler's monitor for longer than it takes; what goes over the connections of an idle node
// would do that several times a second.
type quietConn struct {
	net.Conn
	raw syscall.RawConn
}

// Read implements net.Conn.
func (c *quietConn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, err := transfer(unix.SYS_RECVFROM, "recvfrom", c.raw.Read, b)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

// Write implements net.Conn.
func (c *quietConn) Write(b []byte) (sent int, err error) {
	for sent < len(b) && err == nil {
		var n int
		n, err = transfer(unix.SYS_SENDTO, "sendto", c.raw.Write, b[sent:])
		sent += n
	}
	return sent, err
}

// transfer makes a system call that sends or receives, as soon as it can be done without waiting.
func transfer(call uintptr, name string, whenReady func(func(fd uintptr) bool) error, b []byte) (int, error) {
	var n uintptr
	var errno syscall.Errno
	err := whenReady(func(fd uintptr) bool {
		for {
			n, _, errno = unix.RawSyscall6(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
				unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
			if errno != unix.EINTR {
				return errno != unix.EAGAIN
			}
		}
	})
	switch {
	case err != nil:
		return 0, err
	case errno != 0:
		return 0, os.NewSyscallError(name, errno)
	}
	return int(n), nil
}
