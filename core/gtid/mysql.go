package gtid

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// origin is where transactions come from: a server's UUID or a group's name, and a tag, which is mostly empty.
type origin struct{ uuid, tag string }

// interval holds the sequence numbers from first to last, both included.
type interval struct{ first, last uint64 }

// maxSequence is the highest number that MySQL gives: GNO_END - 1, see sql/rpl_gtid.h.
const maxSequence = 1<<63 - 2

// maxTag is the length of the longest tag.
const maxTag = 32

func parseMySQL(text string) (map[origin][]interval, error) {
	set := map[origin][]interval{}
	for _, part := range strings.Split(text, ",") {
		if part == "" {
			continue // a server prints and takes a comma at either end
		}
		if err := parseSource(set, part); err != nil {
			return nil, err
		}
	}
	for o, list := range set {
		set[o] = normalise(list)
	}
	if len(set) == 0 {
		return nil, nil
	}
	return set, nil
}

// parseSource reads uuid:interval...[:tag:interval...]...: a tag goes for all intervals up to the next one.
func parseSource(set map[origin][]interval, part string) error {
	words := strings.Split(strings.ToLower(part), ":")
	if !validUUID(words[0]) {
		return fmt.Errorf("%s is not a UUID", shorten(words[0]))
	}
	o, wanting := origin{uuid: words[0]}, true
	for _, w := range words[1:] {
		if validTag(w) {
			if wanting && o.tag != "" {
				return fmt.Errorf("tag %q has no interval", o.tag)
			}
			o.tag, wanting = w, true
			continue
		}
		i, err := parseInterval(w)
		if err != nil {
			return err
		}
		set[o] = append(set[o], i)
		wanting = false
	}
	if wanting {
		return fmt.Errorf("%s has no interval", shorten(part))
	}
	return nil
}

func validUUID(s string) bool {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return false
	}
	digits := strings.ReplaceAll(s, "-", "")
	_, err := hex.DecodeString(digits)
	return err == nil && len(digits) == 32
}

func validTag(s string) bool {
	if s == "" || len(s) > maxTag {
		return false
	}
	for i, c := range []byte(s) {
		letter := c == '_' || 'a' <= c && c <= 'z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return true
}

func parseInterval(s string) (interval, error) {
	first, last, ranged := strings.Cut(s, "-")
	a, err := parseSequence(first)
	if err != nil {
		return interval{}, err
	}
	if !ranged {
		return interval{a, a}, nil
	}
	b, err := parseSequence(last)
	switch {
	case err != nil:
		return interval{}, err
	case b < a:
		return interval{}, fmt.Errorf("interval %q ends before it begins", s)
	}
	return interval{a, b}, nil
}

func parseSequence(s string) (uint64, error) {
	n, err := parseNumber(s, 63)
	switch {
	case err != nil:
		return 0, err
	case n < 1 || n > maxSequence:
		return 0, fmt.Errorf("sequence number %s is out of range", s)
	}
	return n, nil
}

// parseNumber reads digits and nothing else: no sign, no underscore.
func parseNumber(s string, bits int) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, bits)
	if err != nil {
		if errors.Is(err, strconv.ErrRange) {
			return 0, fmt.Errorf("number %s is out of range", shorten(s))
		}
		return 0, fmt.Errorf("%s is not a number", shorten(s))
	}
	return n, nil
}

// normalise sorts intervals and joins those that overlap or touch.
func normalise(list []interval) []interval {
	slices.SortFunc(list, func(a, b interval) int { return cmp.Compare(a.first, b.first) })
	var out []interval
	for _, i := range list {
		if n := len(out); n > 0 && i.first <= out[n-1].last+1 {
			out[n-1].last = max(out[n-1].last, i.last)
			continue
		}
		out = append(out, i)
	}
	return out
}

func uniteIntervals(a, b map[origin][]interval) map[origin][]interval {
	out := maps.Clone(a)
	if out == nil {
		return maps.Clone(b)
	}
	for o, list := range b {
		out[o] = normalise(slices.Concat(out[o], list))
	}
	return out
}

func subtractIntervals(a, b map[origin][]interval) map[origin][]interval {
	var out map[origin][]interval
	for o, list := range a {
		if rest := subtractLists(list, b[o]); len(rest) > 0 {
			if out == nil {
				out = map[origin][]interval{}
			}
			out[o] = rest
		}
	}
	return out
}

// subtractLists takes the holes out of list; both ascend.
func subtractLists(list, holes []interval) []interval {
	var out []interval
	for _, i := range list {
		for len(holes) > 0 && holes[0].last < i.first {
			holes = holes[1:]
		}
		rest := true
		for _, h := range holes {
			if h.first > i.last {
				break
			}
			if h.first > i.first {
				out = append(out, interval{i.first, h.first - 1})
			}
			if h.last >= i.last {
				rest = false
				break
			}
			i.first = h.last + 1
		}
		if rest {
			out = append(out, i)
		}
	}
	return out
}

func formatIntervals(set map[origin][]interval) string {
	order := slices.SortedFunc(maps.Keys(set), func(a, b origin) int {
		return cmp.Or(strings.Compare(a.uuid, b.uuid), strings.Compare(a.tag, b.tag))
	})
	var b strings.Builder
	last := ""
	for _, o := range order {
		if o.uuid != last {
			if last != "" {
				b.WriteByte(',')
			}
			b.WriteString(o.uuid)
			last = o.uuid
		}
		if o.tag != "" {
			b.WriteString(":" + o.tag)
		}
		for _, i := range set[o] {
			b.WriteString(":" + strconv.FormatUint(i.first, 10))
			if i.last > i.first {
				b.WriteString("-" + strconv.FormatUint(i.last, 10))
			}
		}
	}
	return b.String()
}
