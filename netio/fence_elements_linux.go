package netio

import (
	"encoding/binary"
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// elementBatch encodes transactions that add and remove set elements and nothing else: what the fence does with each
// report and each act of giving up. Only its last message asks for an answer. The kernel tells each failure in any case,
// so a transaction costs two system calls and not two for each message.
//
// The layout is that of linux/netfilter/nfnetlink.h and linux/netfilter/nf_tables.h. Numbers of netlink are in the order
// of the host, those of nf_tables in network order.
type elementBatch struct {
	buf   []byte
	port  uint32 // of the socket that sends it
	seq   uint32 // of the message added last, whose answer shows that all were looked at
	first uint32
	last  int // where the message added last begins
}

// setElement is an element of a set or, with a value, of a map.
type setElement struct {
	key, value []byte
	timeout    time.Duration
}

// Sizes of struct nlmsghdr and struct nfgenmsg.
const (
	nlmsgSize = 16
	nfgenSize = 4
)

// begin starts a transaction. Sequence numbers go on from the one before, so that a late answer is told from a new one.
func (e *elementBatch) begin(port uint32) {
	e.buf, e.port = e.buf[:0], port
	e.first = e.seq + 1
	e.message(unix.NFNL_MSG_BATCH_BEGIN, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, func() {})
}

// end closes the transaction and returns its bytes. Without any element there is nothing to be done, and end returns nil.
func (e *elementBatch) end() []byte {
	if e.seq == e.first {
		return nil
	}
	asked, last := e.seq, e.last
	flags := e.buf[last+6:]
	binary.NativeEndian.PutUint16(flags, binary.NativeEndian.Uint16(flags)|unix.NLM_F_ACK)
	e.message(unix.NFNL_MSG_BATCH_END, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, func() {})
	e.seq, e.last = asked, last
	return e.buf
}

// elements adds a message that adds elements to a set, or removes them from it.
func (e *elementBatch) elements(remove bool, family byte, table, set string, elements []setElement) {
	kind, flags := uint16(unix.NFT_MSG_NEWSETELEM), uint16(unix.NLM_F_CREATE)
	if remove {
		kind, flags = unix.NFT_MSG_DELSETELEM, 0
	}
	e.message(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags, family, 0, func() {
		e.text(unix.NFTA_SET_ELEM_LIST_TABLE, table)
		e.text(unix.NFTA_SET_ELEM_LIST_SET, set)
		e.nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func() {
			for _, el := range elements {
				e.nested(unix.NFTA_LIST_ELEM, func() { e.element(el) })
			}
		})
	})
}

func (e *elementBatch) element(el setElement) {
	e.nested(unix.NFTA_SET_ELEM_KEY, func() { e.attribute(unix.NFTA_DATA_VALUE, el.key) })
	if el.timeout != 0 {
		e.wrap(unix.NFTA_SET_ELEM_TIMEOUT, func() {
			e.buf = binary.BigEndian.AppendUint64(e.buf, uint64(el.timeout.Milliseconds()))
		})
	}
	if el.value != nil {
		e.nested(unix.NFTA_SET_ELEM_DATA, func() { e.attribute(unix.NFTA_DATA_VALUE, el.value) })
	}
}

func (e *elementBatch) message(typ, flags uint16, family byte, resource uint16, body func()) {
	e.seq++
	e.last = len(e.buf)
	e.buf = append(e.buf, make([]byte, nlmsgSize)...)
	e.buf = append(e.buf, family, unix.NFNETLINK_V0)
	e.buf = binary.BigEndian.AppendUint16(e.buf, resource)
	body()
	h := e.buf[e.last:]
	binary.NativeEndian.PutUint32(h, uint32(len(h)))
	binary.NativeEndian.PutUint16(h[4:], typ)
	binary.NativeEndian.PutUint16(h[6:], flags|unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(h[8:], e.seq)
	binary.NativeEndian.PutUint32(h[12:], e.port)
}

func (e *elementBatch) attribute(typ uint16, value []byte) {
	e.wrap(typ, func() { e.buf = append(e.buf, value...) })
}

func (e *elementBatch) text(typ uint16, s string) {
	e.wrap(typ, func() { e.buf = append(append(e.buf, s...), 0) })
}

func (e *elementBatch) nested(typ uint16, body func()) { e.wrap(typ|unix.NLA_F_NESTED, body) }

// wrap adds an attribute around what body adds, padded to four bytes as netlink has it.
func (e *elementBatch) wrap(typ uint16, body func()) {
	at := len(e.buf)
	e.buf = append(e.buf, 0, 0, 0, 0)
	body()
	binary.NativeEndian.PutUint16(e.buf[at:], uint16(len(e.buf)-at))
	binary.NativeEndian.PutUint16(e.buf[at+2:], typ)
	for len(e.buf)%4 != 0 {
		e.buf = append(e.buf, 0)
	}
}

// errAnswer is an answer of the kernel that can not be read.
var errAnswer = errors.New("an answer of nf_tables can not be read")

// answered looks for the verdict on the transaction among messages from the kernel: the first failure, or that the last
// message was reached without one.
func (e *elementBatch) answered(b []byte) (done bool, failure error) {
	for len(b) > 0 {
		if len(b) < nlmsgSize {
			return false, errAnswer
		}
		size := int(binary.NativeEndian.Uint32(b))
		if size < nlmsgSize || size > len(b) {
			return false, errAnswer
		}
		typ, seq := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:])
		if typ == unix.NLMSG_ERROR && seq-e.first <= e.seq-e.first+1 { // the batch's own messages, its end included
			if size < nlmsgSize+4 {
				return false, errAnswer
			}
			switch errno := int32(binary.NativeEndian.Uint32(b[nlmsgSize:])); {
			case errno != 0 && failure == nil:
				failure = unix.Errno(-errno)
			case errno == 0:
				done = done || seq == e.seq
			}
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return done, failure
}
