package gtid

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// State is MariaDB's gtid_binlog_state: the last transaction of each server of each domain in the binary log.
type State []Last

// Last is the last transaction that a server has written into a domain.
type Last struct {
	Domain, Server uint32
	Seq            uint64
}

func (l Last) String() string { return fmt.Sprintf("%d-%d-%d", l.Domain, l.Server, l.Seq) }

// ParseState reads a state as MariaDB writes it.
func ParseState(text string) (State, error) {
	var s State
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if part == "" && len(s) == 0 && strings.TrimSpace(text) == "" {
			return nil, nil
		}
		fields := strings.Split(part, "-")
		if len(fields) != 3 {
			return nil, fmt.Errorf("%q is no transaction of MariaDB: domain-server-sequence", part)
		}
		domain, err1 := strconv.ParseUint(fields[0], 10, 32)
		server, err2 := strconv.ParseUint(fields[1], 10, 32)
		seq, err3 := strconv.ParseUint(fields[2], 10, 64)
		if err1 != nil || err2 != nil || err3 != nil {
			return nil, fmt.Errorf("%q is no transaction of MariaDB: a number is wrong", part)
		}
		s = append(s, Last{uint32(domain), uint32(server), seq})
	}
	return s, nil
}

// Lacking returns the last transactions of s whose servers have written more than other knows of. Where other knows nothing
// of a server, its history may begin after that one's last; it does not if other has an older transaction of the domain.
func (s State) Lacking(other State) (lacking []string) {
	for _, l := range s {
		i := slices.IndexFunc(other, func(o Last) bool { return o.Domain == l.Domain && o.Server == l.Server })
		switch {
		case i >= 0 && l.Seq > other[i].Seq:
			lacking = append(lacking, l.String())
		case i < 0 && slices.ContainsFunc(other, func(o Last) bool { return o.Domain == l.Domain && o.Seq < l.Seq }):
			lacking = append(lacking, l.String())
		}
	}
	return lacking
}
