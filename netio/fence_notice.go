package netio

import (
	"fmt"

	"github.com/mdlayher/netlink"
)

// Message numbers of linux/netfilter/nfnetlink.h and nf_tables.h that this decoder needs on any system.
const (
	nftSubsystem    = 10 // NFNL_SUBSYS_NFTABLES, in the high byte of a message's type
	nftNewGen       = 15 // NFT_MSG_NEWGEN, which ends the notifications of a transaction and names no table
	nfgenHeaderLen  = 4  // struct nfgenmsg: family, version, resource
	nftAttrTable    = 1  // the name of the table has this number in every kind of message
	nfprotoInet     = 1
	nfprotoARP      = 3
	nfprotoNetdev   = 5
	nftMessageShift = 8
)

// fenceNotice is what a notification of nf_tables says about a table.
type fenceNotice struct {
	Family byte // nfprotoInet, nfprotoARP, nfprotoNetdev, or another
	Table  string
}

// parseFenceNotice decodes a notification. ok is false if it is about no table.
func parseFenceNotice(m netlink.Message) (n fenceNotice, ok bool, err error) {
	if m.Header.Type>>nftMessageShift != nftSubsystem || m.Header.Type&0xff == nftNewGen {
		return n, false, nil
	}
	if len(m.Data) < nfgenHeaderLen {
		return n, false, fmt.Errorf("notification of nf_tables with %d bytes", len(m.Data))
	}
	n.Family = m.Data[0]
	ad, err := netlink.NewAttributeDecoder(m.Data[nfgenHeaderLen:])
	if err != nil {
		return n, false, fmt.Errorf("notification of nf_tables: %w", err)
	}
	for ad.Next() {
		if ad.Type() == nftAttrTable {
			n.Table, ok = ad.String(), true
		}
	}
	if err := ad.Err(); err != nil {
		return n, false, fmt.Errorf("notification of nf_tables: %w", err)
	}
	return n, ok, nil
}

// concerns reports whether the notification is about one of a fence's tables.
func (n fenceNotice) concerns(table string) bool {
	return n.Table == table && (n.Family == nfprotoInet || n.Family == nfprotoARP || n.Family == nfprotoNetdev)
}
