package netio

import (
	"cmp"
	"context"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Pace says how fast the frames of many addresses follow one another.
type Pace struct {
	// Frames is how many are sent at once, by one system call. 0 means 64, a quarter of the smallest receive ring that drivers of
	// network cards commonly start with: what others send, renewals of leases among it, finds room beside them and need not
	// wait until a neighbour has looked at hundreds.
	Frames int
	// Pause is how long the next ones wait then. 0 means a quarter of a millisecond.
	Pause time.Duration
}

func (p Pace) withDefaults() Pace {
	return Pace{Frames: cmp.Or(p.Frames, 64), Pause: cmp.Or(p.Pause, time.Millisecond/4)}
}

// rest waits until the next frames may be sent.
func (p Pace) rest(ctx context.Context) error {
	alarm, err := NewAlarm() // a timer of Go's counts in whole milliseconds
	if err != nil {
		return err
	}
	defer alarm.Stop()
	alarm.Reset(p.Pause)
	select {
	case <-alarm.C():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// batch is frames that lie one behind the other, to be sent by one system call.
type batch struct {
	buf  []byte
	ends []int
}

// end ends the frame that was appended to buf last.
func (b *batch) end() { b.ends = append(b.ends, len(b.buf)) }

// reset empties the batch and keeps its memory.
func (b *batch) reset() { b.buf, b.ends = b.buf[:0], b.ends[:0] }

// headers returns the frames in the kernel's form. They say nothing of where to: the socket is bound to its interface, and a
// frame begins with the hardware address that it goes to.
func (b *batch) headers() []unix.Mmsghdr {
	hs, iovs := make([]unix.Mmsghdr, len(b.ends)), make([]unix.Iovec, len(b.ends))
	start := 0
	for i, end := range b.ends {
		iovs[i].Base = &b.buf[start]
		iovs[i].SetLen(end - start)
		hs[i].Hdr.Iov = &iovs[i]
		hs[i].Hdr.Iovlen = 1
		start = end
	}
	return hs
}

// recvmmsg reads datagrams without waiting for one and returns how many there were (recvmmsg(2)). The lengths are in the headers.
func recvmmsg(fd uintptr, hs []unix.Mmsghdr) (n int, err error) {
	return mmsg(unix.SYS_RECVMMSG, fd, hs)
}

// sendmmsg sends frames without waiting for room and returns how many the kernel took (sendmmsg(2)). The error is that of the
// first one which it did not take, and is nil if it took any.
func sendmmsg(fd uintptr, hs []unix.Mmsghdr) (n int, err error) {
	return mmsg(unix.SYS_SENDMMSG, fd, hs)
}

// mmsg makes one of these two system calls until no signal comes between.
func mmsg(call, fd uintptr, hs []unix.Mmsghdr) (n int, err error) {
	for {
		done, _, errno := unix.Syscall6(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(hs))), uintptr(len(hs)),
			unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(done), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
