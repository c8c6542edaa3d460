package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Numbers of linux/netlink.h, linux/rtnetlink.h and linux/if_addr.h; they are here so that decoding runs anywhere.
const (
	nlHeaderLen = 16
	nlError     = 2

	rtmNewLink = 16
	rtmDelLink = 17
	rtmNewAddr = 20
	rtmDelAddr = 21

	ifAddrMsgLen  = 8
	ifInfoMsgLen  = 16
	ifaAddress    = 1
	ifaLocal      = 2
	ifaCacheInfo  = 6
	iflaIfName    = 3
	iffUp         = 1 << 0
	iffLowerUp    = 1 << 16
	lifetimeNever = 0xffffffff
)

// rtEvent is one decoded rtnetlink notification about an address or a link.
type rtEvent struct {
	addr  netip.Addr // valid for an address event
	added bool
	valid time.Duration

	link        string // not empty for a link event
	up, carrier bool
}

var errShortMessage = errors.New("rtnetlink message is cut short")

// parseNotifications decodes the notifications of one datagram; other kinds of message are passed over.
func parseNotifications(b []byte) ([]rtEvent, error) {
	var events []rtEvent
	for len(b) >= nlHeaderLen {
		size := int(binary.NativeEndian.Uint32(b))
		if size < nlHeaderLen || size > len(b) {
			return events, fmt.Errorf("%w: it says %d of %d bytes", errShortMessage, size, len(b))
		}
		e, ok, err := parseNotification(binary.NativeEndian.Uint16(b[4:]), b[nlHeaderLen:size])
		if err != nil {
			return events, err
		}
		if ok {
			events = append(events, e)
		}
		b = b[min(align4(size), len(b)):]
	}
	return events, nil
}

func parseNotification(kind uint16, body []byte) (e rtEvent, ok bool, err error) {
	switch kind {
	case rtmNewAddr, rtmDelAddr:
		e, err = parseAddrMessage(body)
		e.added = kind == rtmNewAddr
		return e, e.addr.IsValid(), err
	case rtmNewLink, rtmDelLink:
		e, err = parseLinkMessage(body)
		return e, e.link != "", err
	}
	return e, false, nil
}

func parseAddrMessage(b []byte) (e rtEvent, err error) {
	if len(b) < ifAddrMsgLen {
		return e, fmt.Errorf("%w: address message of %d bytes", errShortMessage, len(b))
	}
	var local netip.Addr
	err = eachAttribute(b[ifAddrMsgLen:], func(kind uint16, value []byte) {
		switch kind {
		case ifaAddress:
			e.addr, _ = netip.AddrFromSlice(value)
		case ifaLocal:
			local, _ = netip.AddrFromSlice(value)
		case ifaCacheInfo:
			if len(value) >= 8 {
				if s := binary.NativeEndian.Uint32(value[4:]); s != lifetimeNever {
					e.valid = time.Duration(s) * time.Second
				}
			}
		}
	})
	if local.IsValid() { // on a point-to-point link IFA_ADDRESS is the peer's
		e.addr = local
	}
	return e, err
}

func parseLinkMessage(b []byte) (e rtEvent, err error) {
	if len(b) < ifInfoMsgLen {
		return e, fmt.Errorf("%w: link message of %d bytes", errShortMessage, len(b))
	}
	flags := binary.NativeEndian.Uint32(b[8:])
	e.up, e.carrier = flags&iffUp != 0, flags&iffLowerUp != 0
	err = eachAttribute(b[ifInfoMsgLen:], func(kind uint16, value []byte) {
		if kind == iflaIfName {
			e.link = cString(value)
		}
	})
	return e, err
}

func eachAttribute(b []byte, visit func(kind uint16, value []byte)) error {
	const attrHeaderLen = 4
	for len(b) >= attrHeaderLen {
		size := int(binary.NativeEndian.Uint16(b))
		if size < attrHeaderLen || size > len(b) {
			return fmt.Errorf("%w: attribute says %d of %d bytes", errShortMessage, size, len(b))
		}
		visit(binary.NativeEndian.Uint16(b[2:])&0x3fff, b[attrHeaderLen:size])
		b = b[min(align4(size), len(b)):]
	}
	return nil
}

func align4(n int) int { return (n + 3) &^ 3 }

func cString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
