package netio

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	nlaHeaderLen = 4      // struct nlattr (linux/netlink.h)
	nlaTypeMask  = 0x3fff // without the flags of a type
)

var errAttribute = errors.New("a netlink attribute does not fit into its message")

// attributes reads netlink attributes one after the other, where they are. Package netlink's decoder, which this one agrees
// with, copies each first, and an interface has dozens, of which two are wanted four times a second.
type attributes struct {
	rest  []byte
	typ   uint16
	value []byte
	err   error // the first one; nothing is read after it
}

// next goes to the next attribute and returns false if there is none, or after an error.
func (a *attributes) next() bool {
	if a.err != nil || len(a.rest) == 0 {
		return false
	}
	if len(a.rest) < nlaHeaderLen {
		a.err = errAttribute
		return false
	}
	size := int(binary.NativeEndian.Uint16(a.rest))
	if size == 0 {
		size = nlaHeaderLen
	}
	if size < nlaHeaderLen || size > len(a.rest) {
		a.err = errAttribute
		return false
	}
	a.typ, a.value = binary.NativeEndian.Uint16(a.rest[2:])&nlaTypeMask, a.rest[nlaHeaderLen:size]
	a.rest = a.rest[min(len(a.rest), (size+3)&^3):]
	return true
}

// sized returns the value if it has n bytes, and otherwise zeroes and makes an error of it.
func (a *attributes) sized(n int) []byte {
	if len(a.value) != n {
		a.err = fmt.Errorf("attribute %d of %d bytes and not %d", a.typ, len(a.value), n)
		return make([]byte, n)
	}
	return a.value
}

func (a *attributes) uint8() uint8   { return a.sized(1)[0] }
func (a *attributes) uint32() uint32 { return binary.NativeEndian.Uint32(a.sized(4)) }
func (a *attributes) text() string   { return string(bytes.TrimRight(a.value, "\x00")) }
