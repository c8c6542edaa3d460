package netio

import (
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
)

// From include/uapi/linux/if_link.h, if.h and if_arp.h.
const (
	iflaAddress  = 1
	iflaIfname   = 3
	iflaExtMask  = 29
	extSkipStats = 1 << 3 // counters make up most of a link message

	iffUp       = 0x1
	iffLoopback = 0x8
	iffRunning  = 0x40
	iffNoARP    = 0x80
	iffLowerUp  = 0x10000

	typeEthernet = 1
	ifInfoMsgLen = 16
)

// link is an interface, as an RTM_NEWLINK message tells it.
type link struct {
	Index    uint32
	Name     string
	Type     uint16
	Flags    uint32
	MAC      MAC
	Ethernet bool // MAC is set
}

// up reports whether the interface can carry frames: it is switched on, has a carrier, and its operational state is up
// or unknown, which is what the kernel means by running.
func (l link) up() bool {
	const all = iffUp | iffRunning | iffLowerUp
	return l.Flags&all == all
}

// silent reports whether there is nobody on the link who could be told or asked.
func (l link) silent() bool { return l.Flags&(iffLoopback|iffNoARP) != 0 }

// encodeLinkRequest returns the body of an RTM_GETLINK message that asks for one interface, or for all with no name.
func encodeLinkRequest(name string) ([]byte, error) {
	e := netlink.NewAttributeEncoder()
	e.Uint32(iflaExtMask, extSkipStats)
	if name != "" {
		e.String(iflaIfname, name)
	}
	attrs, err := e.Encode()
	if err != nil {
		return nil, fmt.Errorf("encode request for interface %q: %w", name, err)
	}
	return append(make([]byte, ifInfoMsgLen), attrs...), nil
}

// parseLink reads the body of an RTM_NEWLINK message.
func parseLink(b []byte) (link, error) {
	if len(b) < ifInfoMsgLen {
		return link{}, fmt.Errorf("%w: link of %d bytes", errShortMessage, len(b))
	}
	u := binary.NativeEndian
	l := link{Type: u.Uint16(b[2:]), Index: u.Uint32(b[4:]), Flags: u.Uint32(b[8:])}
	as := attributes{rest: b[ifInfoMsgLen:]}
	for as.next() {
		switch as.typ {
		case iflaIfname:
			l.Name = as.text()
		case iflaAddress:
			if l.Type == typeEthernet && len(as.value) == len(l.MAC) {
				l.MAC, l.Ethernet = MAC(as.value), true
			}
		}
	}
	if as.err != nil {
		return link{}, fmt.Errorf("attributes of a link: %w", as.err)
	}
	return l, nil
}
