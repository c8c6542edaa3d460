package watchdog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// node is a fake of a device node: a file system of FUSE whose root is a file, mounted over one, that answers the ioctls of
// a watchdog (linux/fuse.h, linux/watchdog.h).
type node struct {
	path string
	fuse int // the descriptor by which it is served

	mu    sync.Mutex
	calls []string
	takes uint32 // the time that it takes whatever is asked for, 0 if it does as it is told
	time  uint32
	info  watchdogInfo
}

// watchdogInfo is struct watchdog_info.
type watchdogInfo struct {
	Options, Firmware uint32
	Identity          [32]byte
}

// newNode mounts a device that can do everything.
func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{path: filepath.Join(t.TempDir(), "fake-watchdog"), time: 60,
		info: watchdogInfo{Options: unix.WDIOF_MAGICCLOSE | unix.WDIOF_SETTIMEOUT | unix.WDIOF_KEEPALIVEPING, Firmware: 1}}
	copy(n.info.Identity[:], "fake node")
	must(t, os.WriteFile(n.path, nil, 0o600))
	var err error
	n.fuse, err = unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("open /dev/fuse, to serve a fake device (modprobe fuse): %v", err)
	}
	must(t, unix.Mount("watchdog", n.path, "fuse", unix.MS_NOSUID|unix.MS_NODEV,
		fmt.Sprintf("fd=%d,rootmode=100600,user_id=0,group_id=0", n.fuse)))
	served := make(chan error, 1)
	go func() { served <- n.serve() }()
	t.Cleanup(func() {
		must(t, unix.Unmount(n.path, unix.MNT_DETACH))
		must(t, <-served)
		must(t, unix.Close(n.fuse))
	})
	return n
}

// The requests that are answered, and those that want no answer.
const (
	fuseForget  = 2
	fuseGetattr = 3
	fuseOpen    = 14
	fuseWrite   = 16
	fuseRelease = 18
	fuseFlush   = 25
	fuseInit    = 26
	fuseIoctl   = 39
)

// fuseHeader is struct fuse_in_header.
type fuseHeader struct {
	Len, Opcode        uint32
	Unique, Node       uint64
	UID, GID, PID, Ext uint32
}

// serve answers requests until the file system is unmounted.
func (n *node) serve() error {
	buf := make([]byte, 128<<10)
	for {
		size, err := unix.Read(n.fuse, buf)
		switch {
		case errors.Is(err, unix.ENODEV):
			return nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOENT): // a request that was withdrawn
			continue
		case err != nil:
			return fmt.Errorf("read a request from /dev/fuse: %w", err)
		}
		var h fuseHeader
		body := buf[:size]
		used, err := binary.Decode(body, binary.NativeEndian, &h)
		if err != nil {
			return fmt.Errorf("a request of %d bytes: %w", size, err)
		}
		if h.Opcode == fuseForget {
			continue
		}
		answer, errno := n.answer(h.Opcode, body[used:])
		out := struct {
			Len    uint32
			Error  int32
			Unique uint64
		}{uint32(16 + len(answer)), -int32(errno), h.Unique}
		if _, err := unix.Write(n.fuse, append(encode(out), answer...)); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("answer request %d: %w", h.Opcode, err)
		}
	}
}

func (n *node) answer(opcode uint32, body []byte) ([]byte, unix.Errno) {
	switch opcode {
	case fuseInit:
		return encode(struct {
			Major, Minor, Readahead, Flags uint32
			Background, Congestion         uint16
			MaxWrite, Granularity          uint32
			Rest                           [9]uint32
		}{Major: 7, Minor: 31, MaxWrite: 4096, Granularity: 1}), 0
	case fuseGetattr:
		return encode(struct {
			Valid                 uint64
			Nsec, Dummy           uint32
			Ino, Size, Blocks     uint64
			Times                 [3]uint64
			Nsecs                 [3]uint32
			Mode, Links           uint32
			UID, GID, Rdev, Block uint32
			Flags                 uint32
		}{Ino: 1, Mode: unix.S_IFREG | 0o600, Links: 1, Block: 4096}), 0
	case fuseOpen:
		n.note("open")
		const direct = 1 // each write is a request
		return encode(struct {
			Handle         uint64
			Flags, Padding uint32
		}{Flags: direct}), 0
	case fuseWrite:
		const head = 40
		n.note("write " + string(body[head:]))
		return encode([2]uint32{uint32(len(body) - head)}), 0
	case fuseIoctl:
		return n.ioctl(body)
	case fuseFlush:
		n.note("close")
		return nil, 0
	case fuseRelease:
		return nil, 0
	}
	return nil, unix.ENOSYS
}

// ioctl answers one. The kernel brings and takes what the number of an ioctl says.
func (n *node) ioctl(body []byte) ([]byte, unix.Errno) {
	var in struct {
		Handle          uint64
		Flags, Cmd      uint32
		Arg             uint64
		InSize, OutSize uint32
	}
	used, err := binary.Decode(body, binary.NativeEndian, &in)
	if err != nil {
		return nil, unix.EIO
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]byte, 16) // struct fuse_ioctl_out: the result is 0
	switch in.Cmd {
	case unix.WDIOC_GETSUPPORT:
		n.calls = append(n.calls, "support")
		out = append(out, encode(n.info)...)
	case unix.WDIOC_SETTIMEOUT:
		n.time = binary.NativeEndian.Uint32(body[used:])
		n.calls = append(n.calls, fmt.Sprintf("settimeout %d", n.time))
		if n.takes != 0 {
			n.time = n.takes
		}
		out = append(out, encode(n.time)...)
	case unix.WDIOC_GETTIMEOUT:
		n.calls = append(n.calls, "gettimeout")
		out = append(out, encode(n.time)...)
	case unix.WDIOC_KEEPALIVE:
		n.calls = append(n.calls, "keepalive")
	default:
		return nil, unix.ENOTTY
	}
	return out, 0
}

func (n *node) note(call string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls = append(n.calls, call)
}

// change changes what the device is.
func (n *node) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

func (n *node) expect(t *testing.T, want ...string) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if !slices.Equal(n.calls, want) {
		t.Errorf("the device saw %q, want %q", n.calls, want)
	}
	n.calls = nil
}

// encode writes a value as the kernel has it in memory.
func encode(v any) []byte {
	var b bytes.Buffer
	if err := binary.Write(&b, binary.NativeEndian, v); err != nil {
		panic(fmt.Sprintf("watchdog: encode %T: %v", v, err))
	}
	return b.Bytes()
}
