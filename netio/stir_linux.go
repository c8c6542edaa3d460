package netio

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
)

// Stir counts what changes when TCP connections come and go, in the process's network namespace. While it stays the same, so
// do the connections that others have made to this machine, but for one that ended in the moment in which another was made from here.
type Stir struct {
	Accepted uint64 // connections that others have made so far
	Open     uint64 // connections that there are now
}

// ReadStir reads it. That takes the kernel as long on a machine with a hundred thousand connections as on one with none.
func ReadStir() (Stir, error) {
	// The kernel's counters, RFC 4022: a line with names, and one with numbers.
	b, err := os.ReadFile("/proc/thread-self/net/snmp")
	if err != nil {
		return Stir{}, fmt.Errorf("netio: read the counts of TCP connections: %w", err)
	}
	s, err := parseStir(b)
	if err != nil {
		return Stir{}, fmt.Errorf("netio: read the counts of TCP connections in /proc/net/snmp: %w", err)
	}
	return s, nil
}

func parseStir(b []byte) (s Stir, err error) {
	var names [][]byte
	for line := range bytes.Lines(b) {
		fields := bytes.Fields(line)
		switch {
		case len(fields) == 0 || string(fields[0]) != "Tcp:":
			continue
		case names == nil:
			names = fields
			continue
		case len(fields) != len(names):
			return s, fmt.Errorf("%d numbers for %d names", len(fields)-1, len(names)-1)
		}
		found := 0
		for i, name := range names {
			var n *uint64
			switch string(name) {
			case "PassiveOpens":
				n = &s.Accepted
			case "CurrEstab":
				n = &s.Open
			default:
				continue
			}
			if *n, err = strconv.ParseUint(string(fields[i]), 10, 64); err != nil {
				return s, err
			}
			found++
		}
		if found == 2 {
			return s, nil
		}
		break
	}
	return s, errors.New("PassiveOpens or CurrEstab is not there")
}
