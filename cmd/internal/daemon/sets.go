package daemon

import (
	"errors"
	"strings"

	"github.com/remora-ha/remora/core/gtid"
)

// gtidSets does the arithmetic of GTID sets for the machine, in the notation that the servers of the cluster use.
type gtidSets struct{}

var errFlavours = errors.New("one is of MySQL and the other of MariaDB: the servers of a cluster must be of one family")

// Missing returns how many transactions of a are not in b.
func (gtidSets) Missing(a, b string) (uint64, error) {
	x, y, err := parseSets(a, b)
	if err != nil {
		return 0, err
	}
	return x.Subtract(y).Count(), nil
}

// Union returns what is in a, in b or in both.
func (gtidSets) Union(a, b string) (string, error) {
	x, y, err := parseSets(a, b)
	if err != nil {
		return "", err
	}
	return x.Union(y).String(), nil
}

func parseSets(a, b string) (x, y gtid.Set, err error) {
	f, g := flavour(a), flavour(b)
	if a != "" && b != "" && f != g {
		return x, y, errFlavours
	}
	if a == "" {
		f = g
	}
	if x, err = gtid.Parse(f, a); err != nil {
		return x, y, err
	}
	y, err = gtid.Parse(f, b)
	return x, y, err
}

// flavour tells the notations apart: only MySQL's has colons, between a UUID and its intervals.
func flavour(set string) gtid.Flavour {
	if strings.Contains(set, ":") {
		return gtid.MySQL
	}
	return gtid.MariaDB
}
