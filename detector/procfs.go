package detector

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
)

// Flags of a task, from include/linux/sched.h. Both stay set until the task is gone.
const (
	flagExiting  = 0x4   // PF_EXITING: on its way out, sockets may still be open
	flagSignaled = 0x400 // PF_SIGNALED: killed by a signal, set before a core dump begins
)

// pendingKill is SIGKILL among the signals that a task has yet to take. The kernel sends it to each thread of a process that ends,
// in the moment in which the end is decided, whatever it is for; it is neither refused nor taken back.
const pendingKill = 1 << (9 - 1)

// tcpListen is the state TCP_LISTEN in /proc/net/tcp, from include/net/tcp_states.h.
const tcpListen = 0x0a

// errFormat marks a file of /proc that does not read as proc(5) says.
var errFormat = errors.New("unexpected format")

// taskStat is the part of /proc/PID/stat (proc_pid_stat(5)) that matters here.
type taskStat struct {
	pid      int
	parent   int
	comm     string
	state    byte
	flags    uint32
	pending  uint64 // signals sent to this task alone, bit 0 for signal 1
	start    uint64 // clock ticks since boot: with the pid it names a process for good
	exitCode int    // as for waitpid(2); 0 also if we may not see it
}

// parseStat reads the text of /proc/PID/stat. The name may contain anything, blanks and parentheses included.
func parseStat(b []byte) (s taskStat, err error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 1 || end < open {
		return s, fmt.Errorf("stat: %w: no name in parentheses", errFormat)
	}
	if s.pid, err = strconv.Atoi(string(bytes.TrimSpace(b[:open]))); err != nil {
		return taskStat{}, fmt.Errorf("stat: %w: pid: %w", errFormat, err)
	}
	s.comm = string(b[open+1 : end])
	var f [50][]byte
	n := 0
	for field := range bytes.FieldsSeq(b[end+1:]) {
		if n == len(f) {
			break
		}
		f[n] = field
		n++
	}
	if n < len(f) || len(f[0]) != 1 {
		return taskStat{}, fmt.Errorf("stat: %w: %d fields after the name, need %d", errFormat, n, len(f))
	}
	s.state = f[0][0]
	parent, err0 := strconv.Atoi(string(f[1]))
	flags, err1 := strconv.ParseUint(string(f[6]), 10, 32)
	start, err2 := strconv.ParseUint(string(f[19]), 10, 64)
	pending, err3 := strconv.ParseUint(string(f[28]), 10, 64)
	code, err4 := strconv.ParseInt(string(f[49]), 10, 32)
	if err := errors.Join(err0, err1, err2, err3, err4); err != nil {
		return taskStat{}, fmt.Errorf("stat: %w: %w", errFormat, err)
	}
	s.parent, s.flags, s.pending, s.start, s.exitCode = parent, uint32(flags), pending, start, int(code)
	return s, nil
}

// tcpSocket is a line of /proc/net/tcp or tcp6 (proc_net_tcp in kernel's Documentation/networking).
type tcpSocket struct {
	local netip.AddrPort
	state uint8
	inode uint64
}

// parseSocket reads one line. ok is false for the header and for anything else that is no socket.
func parseSocket(line string) (s tcpSocket, ok bool) {
	f := strings.Fields(line)
	if len(f) < 10 || !strings.HasSuffix(f[0], ":") {
		return s, false
	}
	local, ok := parseHexAddr(f[1])
	if !ok {
		return s, false
	}
	state, err1 := strconv.ParseUint(f[3], 16, 8)
	inode, err2 := strconv.ParseUint(f[9], 10, 64)
	if err1 != nil || err2 != nil {
		return tcpSocket{}, false
	}
	return tcpSocket{local: local, state: uint8(state), inode: inode}, true
}

// parseHexAddr reads an address as the kernel prints it: words of 32 bits in the machine's own order, then the port.
func parseHexAddr(s string) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(s, ":")
	if !ok || len(port) != 4 || len(host) != 8 && len(host) != 32 {
		return netip.AddrPort{}, false
	}
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	var b []byte
	for i := 0; i < len(host); i += 8 {
		w, err := strconv.ParseUint(host[i:i+8], 16, 32)
		if err != nil || w > math.MaxUint32 {
			return netip.AddrPort{}, false
		}
		b = binary.NativeEndian.AppendUint32(b, uint32(w))
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), true
}

// listeningInodes returns the inodes of the listening sockets that a connection to server can have reached: bound to its
// address or to the wildcard.
func listeningInodes(sockets []tcpSocket, server netip.AddrPort) (inodes []uint64) {
	for _, s := range sockets {
		if s.local.Port() == server.Port() && (s.local.Addr() == server.Addr() || s.local.Addr().IsUnspecified()) {
			inodes = append(inodes, s.inode)
		}
	}
	return inodes
}
