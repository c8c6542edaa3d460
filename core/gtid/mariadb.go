package gtid

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// position is where a replication domain has come to: everything after sequence number after, up to last. after is 0
// except in a difference.
type position struct {
	after, last uint64
	// servers has written the transaction with number last: one, or each end of a fork, ascending.
	servers []uint32
}

func parseMariaDB(text string) (map[uint32]position, error) {
	var out map[uint32]position
	for _, part := range strings.Split(text, ",") {
		if part == "" {
			continue
		}
		words := strings.Split(part, "-")
		if len(words) != 3 {
			return nil, fmt.Errorf("%s is not domain-server-sequence", shorten(part))
		}
		domain, err := parseNumber(words[0], 32)
		if err != nil {
			return nil, fmt.Errorf("domain: %w", err)
		}
		server, err := parseNumber(words[1], 32)
		if err != nil {
			return nil, fmt.Errorf("server: %w", err)
		}
		last, err := parseNumber(words[2], 64)
		if err != nil {
			return nil, fmt.Errorf("sequence: %w", err)
		}
		if last == 0 {
			continue // a domain in which nothing happened
		}
		p := position{last: last, servers: []uint32{uint32(server)}}
		out = uniteDomains(out, map[uint32]position{uint32(domain): p})
	}
	return out, nil
}

func uniteDomains(a, b map[uint32]position) map[uint32]position {
	out := maps.Clone(a)
	if out == nil {
		return maps.Clone(b)
	}
	for d, p := range b {
		q, both := out[d]
		switch {
		case !both:
			out[d] = p
			continue
		case p.last > q.last:
			q.last, q.servers = p.last, p.servers
		case p.last == q.last:
			q.servers = slices.Concat(q.servers, p.servers)
			slices.Sort(q.servers)
			q.servers = slices.Compact(q.servers)
		}
		q.after = min(p.after, q.after)
		out[d] = q
	}
	return out
}

func subtractDomains(a, b map[uint32]position) map[uint32]position {
	var out map[uint32]position
	for d, p := range a {
		if q, both := b[d]; both {
			var some bool
			if p, some = subtractPosition(p, q); !some {
				continue
			}
		}
		if out == nil {
			out = map[uint32]position{}
		}
		out[d] = p
	}
	return out
}

// subtractPosition returns what p has and q has not, and whether that is anything.
func subtractPosition(p, q position) (position, bool) {
	switch {
	case q.after > p.after:
		return p, true // q begins later: what it has is not known to be all that it would have to
	case q.last > p.last:
		return position{}, false
	case q.last < p.last:
		p.after = max(p.after, q.last)
		return p, true
	}
	own := slices.DeleteFunc(slices.Clone(p.servers), func(s uint32) bool { return slices.Contains(q.servers, s) })
	if len(own) == 0 {
		return position{}, false
	}
	return position{after: p.last - 1, last: p.last, servers: own}, true
}

func formatDomains(set map[uint32]position) string {
	var parts []string
	for _, d := range slices.Sorted(maps.Keys(set)) {
		for _, s := range set[d].servers {
			parts = append(parts, fmt.Sprintf("%d-%d-%d", d, s, set[d].last))
		}
	}
	return strings.Join(parts, ",")
}
