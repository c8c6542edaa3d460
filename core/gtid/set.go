package gtid

import (
	"fmt"
	"math"
	"strings"
)

// Flavour says whose notation a text is in.
type Flavour uint8

// The flavours. The zero value is neither.
const (
	// MySQL is uuid[:tag]:interval, as in @@global.gtid_executed.
	MySQL Flavour = iota + 1
	// MariaDB is domain-server-sequence, as in @@global.gtid_current_pos.
	MariaDB
)

// String returns the flavour in one lower-case word.
func (f Flavour) String() string {
	switch f {
	case MySQL:
		return "mysql"
	case MariaDB:
		return "mariadb"
	}
	return "unknown"
}

// Set is a set of transactions. The zero value is the empty set, which goes with either flavour. Sets of different
// flavours have no transaction in common.
type Set struct {
	intervals map[origin][]interval // MySQL: ascending, with a gap between each two
	domains   map[uint32]position   // MariaDB
}

// Relation is how two sets compare.
type Relation uint8

// The relations of a to b.
const (
	Equal Relation = iota + 1
	// Ahead: a has all that b has, and more.
	Ahead
	// Behind: b has all that a has, and more.
	Behind
	// Incomparable: each has what the other lacks.
	Incomparable
)

// String returns the relation in one lower-case word.
func (r Relation) String() string {
	switch r {
	case Equal:
		return "equal"
	case Ahead:
		return "ahead"
	case Behind:
		return "behind"
	case Incomparable:
		return "incomparable"
	}
	return "unknown"
}

// maxText bounds what Parse reads, in bytes. A server's max_allowed_packet would let more through; a set of this size
// has some hundred thousand gaps and is a fault by itself.
const maxText = 8 << 20

// Parse reads a set in a server's own notation. Blanks and line breaks, which servers print, mean nothing. The empty text
// is the empty set.
func Parse(f Flavour, text string) (Set, error) {
	if len(text) > maxText {
		return Set{}, fmt.Errorf("parse a GTID set: it has %d bytes, more than %d", len(text), maxText)
	}
	text = strings.Join(strings.Fields(text), "")
	var s Set
	var err error
	switch f {
	case MySQL:
		s.intervals, err = parseMySQL(text)
	case MariaDB:
		s.domains, err = parseMariaDB(text)
	default:
		err = fmt.Errorf("the flavour is unknown")
	}
	if err != nil {
		return Set{}, fmt.Errorf("parse the GTID set %s: %w", shorten(text), err)
	}
	return s, nil
}

// shorten quotes what is enough of a text to find it again.
func shorten(text string) string {
	if len(text) > 80 {
		return fmt.Sprintf("%q...", text[:80])
	}
	return fmt.Sprintf("%q", text)
}

// Empty reports whether s has no transaction.
func (s Set) Empty() bool { return len(s.intervals) == 0 && len(s.domains) == 0 }

// Contains reports whether s has every transaction of o.
func (s Set) Contains(o Set) bool { return o.Subtract(s).Empty() }

// Subtract returns what s has and o has not. Of a MariaDB domain that is a range which ends with the last transaction of
// s; if the two have forked at the same sequence number it is that last transaction at the least.
func (s Set) Subtract(o Set) Set {
	return Set{intervals: subtractIntervals(s.intervals, o.intervals), domains: subtractDomains(s.domains, o.domains)}
}

// Union returns what either has. Of a MariaDB domain that has forked at the same sequence number both ends are kept.
func (s Set) Union(o Set) Set {
	return Set{intervals: uniteIntervals(s.intervals, o.intervals), domains: uniteDomains(s.domains, o.domains)}
}

// Compare says how a relates to b.
func Compare(a, b Set) Relation {
	switch has, had := a.Contains(b), b.Contains(a); {
	case has && had:
		return Equal
	case has:
		return Ahead
	case had:
		return Behind
	}
	return Incomparable
}

// Count returns the number of transactions in s; of MariaDB's that is the number of sequence numbers, which a server may
// have skipped. Count of a difference is how many transactions are missing: a.Subtract(b).Count() are missing on b. It
// stops at the highest number there is.
func (s Set) Count() uint64 {
	var n uint64
	add := func(m uint64) { n += min(m, math.MaxUint64-n) }
	for _, list := range s.intervals {
		for _, i := range list {
			add(i.last - i.first + 1)
		}
	}
	for _, p := range s.domains {
		add(max(p.last-p.after, uint64(len(p.servers))))
	}
	return n
}

// String returns the set as the server prints it, in one line and in a fixed order. Of a difference of MariaDB positions
// it has the ends only.
func (s Set) String() string {
	if len(s.domains) > 0 {
		return formatDomains(s.domains)
	}
	return formatIntervals(s.intervals)
}
