package netio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"time"
)

// Errors of a Fence that a caller may want to tell apart with errors.Is.
var (
	// ErrNoFence means that this kernel can not hold a lease to the millisecond.
	ErrNoFence = errors.New("the kernel lacks nf_tables with the families inet and arp, maps and timeouts " +
		"(CONFIG_NF_TABLES_INET, CONFIG_NF_TABLES_ARP): only address lifetimes of whole seconds are left")
	// ErrFenceLost means that somebody else removed or changed the fence's tables, and so may have let traffic through.
	ErrFenceLost = errors.New("the fence's tables were removed or changed by another program")
	// ErrNotGuarded means that an address was to be opened that the fence does not know, or that the fence is not installed.
	ErrNotGuarded = errors.New("the address is not guarded by the fence")
	// ErrReportOrder means that report numbers were used out of order; see Arm and Open.
	ErrReportOrder = errors.New("report numbers out of order")
)

// FenceTable is the default name of the fence's tables.
const FenceTable = "remora"

// MinFenceTTL is the shortest lease that a Fence takes. The kernel rounds a timeout down to whole ticks, of 10 ms at
// most, and takes a timeout of no ticks for an element that lives for ever.
const MinFenceTTL = 20 * time.Millisecond

// fenceTableMax keeps the message in which the kernel repeats our rules within one datagram.
const fenceTableMax = 32

// FenceConfig says how a Fence works. The zero value is usable.
type FenceConfig struct {
	// Logger gets what no caller is told: losses and repairs found on the way. Nil means silence.
	Logger *slog.Logger
	// Table is the name of the fence's tables, in the families inet, arp and netdev. They belong to the fence alone: whatever
	// else is in a table of that name is removed. The default is [FenceTable].
	Table string
}

func (c FenceConfig) withDefaults() (FenceConfig, error) {
	c.Logger = orDiscard(c.Logger)
	if c.Table == "" {
		c.Table = FenceTable
	}
	if len(c.Table) > fenceTableMax {
		return c, fmt.Errorf("netio: fence: table name %q is longer than %d bytes", c.Table, fenceTableMax)
	}
	return c, nil
}

// plainAddr returns an address as it appears in packets.
func plainAddr(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// plainAddrs returns the addresses as they appear in packets, each once.
func plainAddrs(addrs []netip.Addr) (map[netip.Addr]bool, error) {
	set := make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		if !a.IsValid() {
			return nil, errors.New("an address to be guarded is not set")
		}
		set[plainAddr(a)] = true
	}
	return set, nil
}

// closedNumber is what a closed address points to. No report has it.
const closedNumber = 0

// number encodes a report's number, which is not zero, for the kernel's sets, whose type is that of packet marks. The
// kernel only compares its 32 bits; nft(8) shows them in this order. Numbers come again after four thousand million
// reports, when nothing points to the old ones any more.
func number(seq uint64) []byte { return mark(short(seq)) }

// short is the number before it is encoded.
func short(seq uint64) uint32 {
	if seq == closedNumber {
		return 0
	}
	return uint32((seq-1)%math.MaxUint32 + 1)
}

func mark(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
