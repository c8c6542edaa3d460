package detector

import (
	"encoding/binary"

	"golang.org/x/net/bpf"
)

// The kernel's process connector: netlink messages of family NETLINK_CONNECTOR with a struct cn_msg and a struct
// proc_event in it (include/uapi/linux/connector.h, cn_proc.h). All numbers are in the machine's own byte order.
const (
	cnIndexProc = 1 // CN_IDX_PROC, also the multicast group
	cnValueProc = 1 // CN_VAL_PROC

	procListen = 1          // PROC_CN_MCAST_LISTEN
	procIgnore = 2          // PROC_CN_MCAST_IGNORE
	procNone   = 0          // PROC_EVENT_NONE: the acknowledgement
	procExit   = 0x80000000 // PROC_EVENT_EXIT

	netlinkHeader   = 16
	connectorHeader = 20
	offsetWhat      = netlinkHeader + connectorHeader
	offsetPID       = offsetWhat + 16
	offsetTGID      = offsetWhat + 20
	offsetCode      = offsetWhat + 24
	exitEventSize   = offsetCode + 4
)

// controlMessage switches process events on or off (enum proc_cn_mcast_op).
func controlMessage(op uint32) []byte {
	ne := binary.NativeEndian
	b := make([]byte, netlinkHeader+connectorHeader+4)
	ne.PutUint32(b[0:], uint32(len(b)))
	ne.PutUint16(b[4:], nlmsgDone)
	ne.PutUint32(b[netlinkHeader:], cnIndexProc)
	ne.PutUint32(b[netlinkHeader+4:], cnValueProc)
	ne.PutUint16(b[netlinkHeader+16:], 4)
	ne.PutUint32(b[netlinkHeader+connectorHeader:], op)
	return b
}

const nlmsgDone = 3 // NLMSG_DONE, netlink(7)

// parseAck reads the answer to a control message: an errno, 0 for success.
func parseAck(b []byte) (errno uint32, ok bool) {
	ne := binary.NativeEndian
	if !isProcEvent(b) || ne.Uint32(b[offsetWhat:]) != procNone {
		return 0, false
	}
	return ne.Uint32(b[offsetPID:]), true
}

// isProcEvent reports whether b is a process event that is long enough to be read.
func isProcEvent(b []byte) bool {
	ne := binary.NativeEndian
	return len(b) >= exitEventSize && ne.Uint32(b[netlinkHeader:]) == cnIndexProc &&
		ne.Uint32(b[netlinkHeader+4:]) == cnValueProc
}

// exitEvent is the end of one thread of a process.
type exitEvent struct {
	tid, pid int
	status   int // as for waitpid(2)
}

// parseExit reads a datagram of the connector. ok is false if it is no exit event.
func parseExit(b []byte) (e exitEvent, ok bool) {
	ne := binary.NativeEndian
	if !isProcEvent(b) || ne.Uint32(b[offsetWhat:]) != procExit {
		return e, false
	}
	return exitEvent{
		tid:    int(int32(ne.Uint32(b[offsetPID:]))),
		pid:    int(int32(ne.Uint32(b[offsetTGID:]))),
		status: int(int32(ne.Uint32(b[offsetCode:]))),
	}, true
}

// exitFilter is a socket filter that lets only the exit events of one process pass, so that the forks and exits of the
// whole machine do not wake us. Filters load words in network order.
func exitFilter(pid int) ([]bpf.RawInstruction, error) {
	word := func(v uint32) uint32 {
		b := binary.NativeEndian.AppendUint32(nil, v)
		return binary.BigEndian.Uint32(b)
	}
	return bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetWhat, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: word(procExit), SkipFalse: 3},
		bpf.LoadAbsolute{Off: offsetTGID, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: word(uint32(pid)), SkipFalse: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	})
}

// signalOf returns the signal that ended a task, 0 if it ended by itself.
func signalOf(status int) int { return status & 0x7f }
