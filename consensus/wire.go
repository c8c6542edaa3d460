package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
	"unicode/utf8"

	"github.com/remora-ha/remora/core"
)

// wireV6 is the first byte of every message; the second is its kind.
const wireV6 = 6

// The kinds of messages.
const (
	kindReport byte = iota + 1
	kindConfirm
	kindEcho
	kindAck
	kindNotice
	kindReleaseRequest
	kindFreeze
	kindFrozen
	kindDrained
	kindCaughtUp
	kindClients
)

// Bounds on what a message may carry.
const (
	maxWireName  = 255 // bytes of a name
	maxWireList  = 256 // elements of a list
	maxWireSet   = 2 * core.MaxSet
	maxWireSmall = 64 // bytes of a source, a version, an interface
)

// Errors of the codec.
var (
	errWireVersion = errors.New("unknown version of a message")
	errWireKind    = errors.New("unknown kind of message")
	errWireShort   = errors.New("message is cut short")
	errWireLong    = errors.New("message has bytes after its end")
	errWireValue   = errors.New("message has a value out of bounds")
	errWireTooBig  = errors.New("message does not fit into a datagram")
)

// trim says how long the texts of a message may be. Texts are for people: they are cut until the message fits.
type trim struct {
	reason, gtid, small int // bytes
	set                 int // bytes of a report's executed set, which is left out rather than cut
	alarms, addrs       int // elements
}

// trims is tried in order.
func trims() [4]trim {
	return [4]trim{
		{reason: core.MaxReason, gtid: core.MaxGTID, small: maxWireSmall, set: core.MaxSet, alarms: core.MaxAlarms, addrs: 32},
		{reason: 80, gtid: core.MaxGTID, small: maxWireSmall, set: core.MaxSet, alarms: 2, addrs: 16},
		{reason: 32, gtid: 64, small: 32, set: core.MaxSet, alarms: 1, addrs: 8},
		{reason: 0, gtid: 128, small: 24, alarms: 0, addrs: 4},
	}
}

// appendMessage appends the encoding of m to b, with texts cut to what fits.
func appendMessage(b []byte, m core.Message) ([]byte, error) {
	for _, t := range trims() {
		e := encoder{b: b, trim: t}
		if err := e.message(m); err != nil {
			return b, err
		}
		if len(e.b)-len(b) <= maxMessage {
			return e.b, nil
		}
	}
	return b, fmt.Errorf("%w: %T", errWireTooBig, m)
}

// parseMessage decodes one message. It accepts nothing that appendMessage does not make.
func parseMessage(b []byte) (core.Message, error) {
	if len(b) < 2 {
		return nil, errWireShort
	}
	if b[0] != wireV6 {
		return nil, fmt.Errorf("%w: %d, this release knows %d", errWireVersion, b[0], wireV6)
	}
	d := decoder{b: b[2:]}
	m := d.message(b[1])
	switch {
	case d.err != nil:
		return nil, d.err
	case len(d.b) > 0:
		return nil, errWireLong
	}
	return m, nil
}

// encoder appends values. A name or a list that the decoder would not accept is an error.
type encoder struct {
	b   []byte
	err error
	trim
}

func (e *encoder) message(m core.Message) error {
	kind := func(k byte) { e.b = append(e.b, wireV6, k) }
	switch m := m.(type) {
	case core.Report:
		kind(kindReport)
		e.report(m)
	case core.Confirm:
		kind(kindConfirm)
		e.uint(uint64(m.Term))
		e.fixed(m.Nonce)
	case core.Echo:
		kind(kindEcho)
		e.uint(uint64(m.Term))
		e.fixed(m.Nonce)
	case core.Ack:
		kind(kindAck)
		e.ack(m)
	case core.Notice:
		kind(kindNotice)
		e.name(string(m.Group))
		e.state(m.State)
		e.uint(uint64(m.Spec))
		e.uint(uint64(m.Next))
	case core.ReleaseRequest:
		kind(kindReleaseRequest)
		e.name(string(m.Group))
		e.uint(uint64(m.Epoch))
		e.bool(m.Unproved)
		e.bool(m.Failed)
		e.text(m.Reason, e.reason)
	default:
		return e.promotion(kind, m)
	}
	return e.err
}

// promotion encodes the messages of policy promote, and those between daemons.
func (e *encoder) promotion(kind func(byte), m core.Message) error {
	switch m := m.(type) {
	case core.Freeze:
		kind(kindFreeze)
		e.choice(m.Group, m.Epoch, m.Round)
		e.uint(uint64(m.Term))
	case core.Frozen:
		kind(kindFrozen)
		e.choice(m.Group, m.Epoch, m.Round)
		e.sets(m.Executed)
		e.sets(m.Received)
		e.text(m.Err, e.reason)
	case core.Drained:
		kind(kindDrained)
		e.choice(m.Group, m.Epoch, uint64(m.Move))
		e.sets(m.Executed)
		e.text(m.Err, e.reason)
	case core.CaughtUp:
		kind(kindCaughtUp)
		e.choice(m.Group, m.Epoch, uint64(m.Move))
		e.text(m.Err, e.reason)
	case core.Clients:
		kind(kindClients)
		e.clients(m)
	default:
		return fmt.Errorf("%w: %T", errWireKind, m)
	}
	return e.err
}

func (e *encoder) byte(v byte)    { e.b = append(e.b, v) }
func (e *encoder) uint(v uint64)  { e.b = binary.AppendUvarint(e.b, v) }
func (e *encoder) int(v int64)    { e.b = binary.AppendVarint(e.b, v) }
func (e *encoder) fixed(v uint64) { e.b = binary.BigEndian.AppendUint64(e.b, v) }

func (e *encoder) bool(v bool) {
	if v {
		e.byte(1)
	} else {
		e.byte(0)
	}
}

// name writes a text that must not be cut.
func (e *encoder) name(s string) {
	if len(s) > maxWireName {
		e.err = fmt.Errorf("%w: a name of %d bytes, at most %d are allowed", errWireValue, len(s), maxWireName)
		return
	}
	e.string(s)
}

// sets writes a GTID set, which must not be cut.
func (e *encoder) sets(s string) {
	if len(s) > maxWireSet {
		e.err = fmt.Errorf("%w: a GTID set of %d bytes, at most %d are allowed", errWireValue, len(s), maxWireSet)
		return
	}
	e.string(s)
}

// choice writes what names a round of a choice or a switchover.
func (e *encoder) choice(g core.GroupName, epoch core.Epoch, number uint64) {
	e.name(string(g))
	e.uint(uint64(epoch))
	e.uint(number)
}

func (e *encoder) string(s string) {
	e.uint(uint64(len(s)))
	e.b = append(e.b, s...)
}

// count writes the length of a list.
func (e *encoder) count(n int) {
	if n > maxWireList {
		e.err = fmt.Errorf("%w: a list of %d, at most %d are allowed", errWireValue, n, maxWireList)
	}
	e.uint(uint64(n))
}

// text writes at most limit bytes of s, cut between characters.
func (e *encoder) text(s string, limit int) {
	if len(s) > limit {
		for limit > 0 && !utf8.RuneStart(s[limit]) {
			limit--
		}
		s = s[:limit]
	}
	e.string(s)
}

func (e *encoder) addr(a netip.Addr) {
	raw := a.AsSlice()
	e.byte(byte(len(raw)))
	e.b = append(e.b, raw...)
}

func (e *encoder) duration(d time.Duration) { e.int(int64(d)) }

// decoder takes values off b. After the first error it yields zero values.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.b = nil
}

func (d *decoder) take(n int) []byte {
	if n > len(d.b) {
		d.fail(errWireShort)
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) byte() byte {
	if v := d.take(1); v != nil {
		return v[0]
	}
	return 0
}

// uint takes a variable-length integer in its shortest form.
func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail(errWireShort)
		return 0
	}
	if n > 1 && d.b[n-1] == 0 {
		d.fail(errWireValue)
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) int() int64 {
	v := d.uint()
	return int64(v>>1) ^ -int64(v&1)
}

func (d *decoder) fixed() uint64 {
	if v := d.take(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

// enum takes a byte that must not be above limit.
func (d *decoder) enum(limit byte) byte {
	v := d.byte()
	if v > limit {
		d.fail(errWireValue)
		return 0
	}
	return v
}

func (d *decoder) bool() bool { return d.enum(1) == 1 }

// count takes the length of a list.
func (d *decoder) count(limit int) int {
	n := d.uint()
	if n > uint64(limit) || n > uint64(len(d.b)) {
		d.fail(errWireValue)
		return 0
	}
	return int(n)
}

func (d *decoder) text(limit int) string {
	n := d.count(limit)
	return string(d.take(n))
}

func (d *decoder) addr() netip.Addr {
	n := d.byte()
	if n != 0 && n != 4 && n != 16 {
		d.fail(errWireValue)
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(d.take(int(n)))
	return a
}

func (d *decoder) duration() time.Duration { return time.Duration(d.int()) }
