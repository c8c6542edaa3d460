package sim

import (
	"fmt"
	"strconv"
	"strings"
)

// txns counts the transactions that a server has of each server that ever wrote any. A set is written "n1:5,n2:2": the
// first five of n1 and the first two of n2.
type txns [maxNodes]int

func (t txns) String() string {
	var b strings.Builder
	for i, n := range t {
		if n > 0 {
			fmt.Fprintf(&b, "%s:%d,", nodeName(i), n)
		}
	}
	return strings.TrimSuffix(b.String(), ",")
}

func parseTxns(s string) (t txns, err error) {
	if s == "" {
		return t, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		name, n, ok := strings.Cut(part, ":")
		count, err := strconv.Atoi(n)
		if !ok || err != nil || len(name) != 2 || name[1] < '1' || int(name[1]-'1') >= maxNodes {
			return t, fmt.Errorf("%q is no set", s)
		}
		t[name[1]-'1'] = count
	}
	return t, nil
}

func (t txns) union(o txns) txns {
	for i := range t {
		t[i] = max(t[i], o[i])
	}
	return t
}

// lacks returns how many transactions of o are not in t.
func (t txns) lacks(o txns) int {
	n := 0
	for i := range t {
		n += max(0, o[i]-t[i])
	}
	return n
}

// txnSets is the arithmetic of such sets for the machine.
type txnSets struct{}

func (txnSets) Missing(a, b string) (uint64, error) {
	x, err1 := parseTxns(a)
	y, err2 := parseTxns(b)
	if err1 != nil || err2 != nil {
		return 0, fmt.Errorf("%q and %q are not both sets", a, b)
	}
	return uint64(y.lacks(x)), nil
}

func (txnSets) Union(a, b string) (string, error) {
	x, err1 := parseTxns(a)
	y, err2 := parseTxns(b)
	if err1 != nil || err2 != nil {
		return "", fmt.Errorf("%q and %q are not both sets", a, b)
	}
	return x.union(y).String(), nil
}
