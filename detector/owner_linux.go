package detector

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Why the server's process was not found.
var (
	errNotVisible = errors.New("it is not visible in our process namespace")
	errNotLocal   = errors.New("nobody listens at its address in our network namespace")
	errPermission = errors.New("the open files of other users' processes are not readable: run as root or with CAP_SYS_PTRACE")
	errNotFound   = errors.New("no visible process holds its listening socket")
)

// listenersAt returns the listening TCP sockets that the tables of dir show, /proc/PID/net. The kernel lists them before
// all others, so the many connections of a busy server are not read.
func listenersAt(dir string) (found []tcpSocket, err error) {
	for _, name := range []string{"tcp", "tcp6"} {
		f, err := os.Open(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) && name == "tcp6" {
			continue // no IPv6 here
		}
		if err != nil {
			return nil, err
		}
		for scan := bufio.NewScanner(f); scan.Scan(); {
			s, ok := parseSocket(scan.Text())
			if ok && s.state != tcpListen {
				break
			}
			if ok {
				found = append(found, s)
			}
		}
		f.Close()
	}
	return found, nil
}

// ownTables is where the kernel shows the sockets of the calling thread's network namespace.
const ownTables = "/proc/thread-self/net"

// listeners returns the addresses at which somebody in our network namespace listens on a port.
func listeners(port uint16) (as []netip.Addr) {
	sockets, err := listenersAt(ownTables)
	if err != nil {
		return nil
	}
	for _, s := range sockets {
		if s.local.Port() == port {
			as = append(as, s.local.Addr())
		}
	}
	return as
}

// doors returns the listening sockets through which e can have been reached; none for a unix socket.
func doors(e endpoint) ([]uint64, error) {
	if !e.server.IsValid() {
		return nil, nil
	}
	sockets, err := listenersAt(ownTables)
	if err != nil {
		return nil, err
	}
	inodes := listeningInodes(sockets, e.server)
	if len(inodes) == 0 {
		return nil, errNotLocal
	}
	return inodes, nil
}

// findOwner looks for the process behind e, which has the given listening sockets. path is that of the server's unix
// socket, if it is known.
func findOwner(ctx context.Context, e endpoint, inodes []uint64, path string) (pid int, err error) {
	if len(inodes) == 0 {
		return e.pid, plausible(e.pid)
	}
	pid, err = holder(ctx, inodes)
	if errors.Is(err, errPermission) && path != "" {
		if asked, aerr := askSocket(ctx, path, inodes); aerr == nil {
			return asked, nil
		}
	}
	return pid, err
}

// plausible refuses what cannot be the server: nobody, ourselves, and the init process that may hold the listening
// socket for it (systemd's socket activation).
func plausible(pid int) error {
	if pid <= 1 || pid == os.Getpid() {
		return errNotVisible
	}
	return nil
}

// holder returns the process that has one of the sockets open. Processes with a server's name come first, then the rest
// in the order of their numbers, so that a parent goes before a child that inherited the socket.
func holder(ctx context.Context, inodes []uint64) (int, error) {
	all, err := allProcesses(ctx)
	if err != nil {
		return 0, err
	}
	var likely, others []int
	for _, p := range all {
		switch {
		case plausible(p.pid) != nil:
		case strings.Contains(p.name, "mysqld") || strings.Contains(p.name, "mariadbd"):
			likely = append(likely, p.pid)
		default:
			others = append(others, p.pid)
		}
	}
	slices.Sort(likely)
	slices.Sort(others)
	denied := false
	for _, pid := range slices.Concat(likely, others) {
		ok, err := holds(ctx, pid, inodes)
		if ok {
			return pid, nil
		}
		denied = denied || errors.Is(err, fs.ErrPermission)
	}
	if denied {
		return 0, errPermission
	}
	return 0, errNotFound
}

// holds reports whether a process has one of the sockets open.
func holds(ctx context.Context, pid int, inodes []uint64) (bool, error) {
	open, err := socketsOf(ctx, pid)
	return slices.ContainsFunc(inodes, func(inode uint64) bool { return open[inode] }), err
}

// filesAtOnce is how many of a process's open files are looked at without a rest, see allProcesses. A server has one for each
// client.
const filesAtOnce = 256

// socketsOf returns the inodes of the sockets that a process has open. It rests like allProcesses, and after each process.
func socketsOf(ctx context.Context, pid int) (map[uint64]bool, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	names, err := namesIn(dir)
	if err != nil {
		return nil, err
	}
	open := map[uint64]bool{}
	for i, n := range names {
		if i%filesAtOnce == 0 {
			pause(ctx, walkRest)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
		}
		target, err := os.Readlink(filepath.Join(dir, n))
		if errors.Is(err, fs.ErrPermission) {
			return nil, err
		}
		if s, ok := strings.CutPrefix(target, "socket:["); ok {
			if inode, err := strconv.ParseUint(strings.TrimSuffix(s, "]"), 10, 64); err == nil {
				open[inode] = true
			}
		}
	}
	return open, nil
}

// errHandedOver means that somebody else has a server's listening sockets open, too, so that they outlive it.
var errHandedOver = errors.New("its listening sockets were handed to it (LISTEN_FDS), and whoever did that keeps them")

// closing returns the listening TCP sockets of our network namespace that close when a process ends: it has them open, and
// none of its ancestors has. Not every init process may be looked into; one that hands sockets over says so in the
// environment (sd_listen_fds(3)).
func closing(ctx context.Context, pid int) ([]tcpSocket, error) {
	found, err := listenersAt(ownTables)
	if err != nil {
		return nil, err
	}
	environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return nil, err
	}
	if handedOver(environment) {
		return nil, errHandedOver
	}
	for p := pid; p > 0 && len(found) > 0; {
		open, err := socketsOf(ctx, p)
		if err != nil && (p == pid || !errors.Is(err, fs.ErrPermission)) {
			return nil, err
		}
		found = slices.DeleteFunc(found, func(s tcpSocket) bool { return open[s.inode] != (p == pid) })
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p))
		if err != nil {
			return nil, err
		}
		s, err := parseStat(b)
		if err != nil {
			return nil, err
		}
		p = s.parent
	}
	return found, nil
}

// handedOver reports whether an environment, as /proc/PID/environ shows it, is that of a process which was given sockets.
func handedOver(environment []byte) bool {
	return bytes.HasPrefix(environment, []byte("LISTEN_FDS=")) || bytes.Contains(environment, []byte("\x00LISTEN_FDS="))
}

// askSocket returns the process that listens on the server's unix socket, if it lives where the TCP sockets are seen.
func askSocket(ctx context.Context, path string, inodes []uint64) (int, error) {
	dialer := net.Dialer{Timeout: 100 * time.Millisecond}
	c, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return 0, err
	}
	pid := peerPID(raw)
	if err := plausible(pid); err != nil {
		return 0, err
	}
	sockets, err := listenersAt(fmt.Sprintf("/proc/%d/net", pid))
	if err != nil {
		return 0, err
	}
	for _, s := range sockets {
		if slices.Contains(inodes, s.inode) {
			return pid, nil
		}
	}
	return 0, errNotFound
}
