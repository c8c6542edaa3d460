package core

import (
	"cmp"
	"fmt"
	"slices"
)

// Sets does the arithmetic of GTID sets, which are written as the servers write them. It is pure: the same sets give the
// same answer. The empty text is the empty set.
type Sets interface {
	// Missing returns how many transactions of a are not in b.
	Missing(a, b string) (uint64, error)
	// Union returns what is in a, in b or in both.
	Union(a, b string) (string, error)
}

// standing is a server in the choice of a successor: its frozen sets, and what ranks it among equals.
type standing struct {
	node NodeName
	// executed is what it has executed, all that and what it has received besides.
	executed, all string
	// unfit says why it can not be chosen. What it has counts all the same.
	unfit    string
	failed   Instant // when it failed, if that is not long ago; else 0
	wanted   bool
	priority int
}

// choose returns the server that becomes the writable one, or why none does. It has all that any server in the choice
// has. Among those that do, those that have just failed come last, the one that did so longest ago first; then counts who has executed most, whom an operator
// wants, the priority and the name. Where no server has all that the others have, every choice would drop transactions
// without anybody's consent, so there is none.
func choose(sets Sets, ss []standing) (*standing, string) {
	var best []*standing
	var lacking string
	for i := range ss {
		why := ss[i].unfit
		if why == "" {
			why = lacks(sets, ss[i], ss)
		} else {
			why = fmt.Sprintf("%s can not be chosen: %s", ss[i].node, why)
		}
		if why == "" {
			best = append(best, &ss[i])
		} else if lacking == "" || ss[i].unfit == "" {
			lacking = why
		}
	}
	if len(best) == 0 {
		return nil, cmp.Or(lacking, "no server has answered")
	}
	slices.SortFunc(best, func(a, b *standing) int {
		return cmp.Or(cmp.Compare(a.failed, b.failed), compareExecuted(sets, a.executed, b.executed), -compareBool(a.wanted, b.wanted),
			-cmp.Compare(a.priority, b.priority), cmp.Compare(a.node, b.node))
	})
	return best[0], ""
}

// lacks returns what another server has and s has not, in words, or nothing.
func lacks(sets Sets, s standing, ss []standing) string {
	for _, other := range ss {
		n, err := sets.Missing(other.all, s.all)
		switch {
		case err != nil:
			return fmt.Sprintf("the sets of %s and %s can not be compared: %v", s.node, other.node, err)
		case n > 0:
			return fmt.Sprintf("%s lacks %d transactions that %s has", s.node, n, other.node)
		}
	}
	return ""
}

// compareExecuted orders by how many transactions are left to be applied: of two sets of servers that have received the
// same, the one with fewer missing comes first.
func compareExecuted(sets Sets, a, b string) int {
	lessOfA, err1 := sets.Missing(b, a)
	lessOfB, err2 := sets.Missing(a, b)
	if err1 != nil || err2 != nil {
		return 0
	}
	return cmp.Compare(lessOfA, lessOfB)
}

// lost returns why a server must not be chosen because of what the old owner was last known to have executed, or nothing.
// limit is the number of transactions that may be lost, negative for any.
func lost(sets Sets, s standing, owner NodeName, last string, limit int64) string {
	switch {
	case limit < 0 || owner == "":
		return ""
	case last == "":
		return fmt.Sprintf("nobody knows what %s had executed last, so it is not known what would be lost", owner)
	}
	n, err := sets.Missing(last, s.all)
	switch {
	case err != nil:
		return fmt.Sprintf("the set of %s can not be compared with the last known one of %s: %v", s.node, owner, err)
	case n > uint64(limit):
		return fmt.Sprintf("%s, the most advanced one, lacks %d transactions that %s is known to have executed, and max_lost_transactions is %d",
			s.node, n, owner, limit)
	}
	return ""
}
