package netio

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// localWait bounds how long a Bind waits until its IPv6 addresses are this node's, a look each localPause.
	localWait  = 20 * time.Millisecond
	localPause = 50 * time.Microsecond
)

// Where things are in a struct rtmsg, from include/uapi/linux/rtnetlink.h.
const (
	rtDstBits = 1
	rtType    = 7
)

// awaitLocal waits until the kernel takes what comes for the last of the IPv6 addresses among ps. An address is there as soon
// as it was added, but the route by which its packets are this node's comes from a work queue, in the order in which addresses were
// added (addrconf_dad_work in net/ipv6/addrconf.c). Until then the packets are dropped, and a client whose SYN was among them
// tries again only after a second. A processor that never waits keeps the queue waiting, too.
//
// That the route does not come, or can not be asked for, is no failure to bind.
func (s *session) awaitLocal(ps []netip.Prefix) {
	var last netip.Addr
	for _, p := range ps {
		if p.Addr().Is6() {
			last = p.Addr()
		}
	}
	if !last.IsValid() {
		return
	}
	for end := time.Now().Add(localWait); time.Now().Before(end); time.Sleep(localPause) {
		if local, err := s.isLocal(last); local || err != nil {
			return
		}
	}
}

// isLocal reports whether packets to an IPv6 address are for this node.
func (s *session) isLocal(ip netip.Addr) (bool, error) {
	e := netlink.NewAttributeEncoder()
	e.Bytes(unix.RTA_DST, ip.AsSlice())
	attrs, err := e.Encode()
	if err != nil {
		return false, fmt.Errorf("encode request for the route to %v: %w", ip, err)
	}
	b := make([]byte, unix.SizeofRtMsg, unix.SizeofRtMsg+len(attrs))
	b[0], b[rtDstBits] = familyIPv6, byte(ip.BitLen())
	msgs, err := s.request(unix.RTM_GETROUTE, 0, append(b, attrs...))
	if err != nil {
		return false, err
	}
	return len(msgs) == 1 && len(msgs[0].Data) >= unix.SizeofRtMsg && msgs[0].Data[rtType] == unix.RTN_LOCAL, nil
}
