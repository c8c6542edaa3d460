package config

import (
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2/unstable"
)

// A leaf is a raw field that takes a value of one kind. decode returns what is wrong, or nothing.
type leaf interface {
	decode(v *value) string
}

// text is a string. As with all leaves, the zero value means that the key is not in the file.
type text struct {
	val string
	at  pos
}

func (t *text) decode(v *value) string {
	t.at = v.at
	if v.kind != unstable.String {
		return "must be a string in quotes, not " + describe(v)
	}
	t.val = v.text
	return ""
}

func (t *text) set() bool { return t.at.line > 0 }

// integer is a whole number.
type integer struct {
	val int64
	at  pos
}

func (n *integer) decode(v *value) string {
	n.at = v.at
	if v.kind != unstable.Integer {
		return "must be a whole number without quotes, not " + describe(v)
	}
	base := 10
	if strings.HasPrefix(strings.TrimLeft(v.text, "+-"), "0") {
		base = 0 // the prefixes 0x, 0o and 0b mean in TOML what they mean in Go
	}
	val, err := strconv.ParseInt(strings.ReplaceAll(v.text, "_", ""), base, 64)
	if err != nil {
		return v.text + " is too large"
	}
	n.val = val
	return ""
}

func (n *integer) set() bool { return n.at.line > 0 }

// boolean is true or false.
type boolean struct {
	val bool
	at  pos
}

func (b *boolean) decode(v *value) string {
	b.at = v.at
	if v.kind != unstable.Bool {
		return "must be true or false, without quotes, not " + describe(v)
	}
	b.val = v.text == "true"
	return ""
}

// span is a duration such as "400ms".
type span struct {
	val time.Duration
	at  pos
}

func (s *span) decode(v *value) string {
	s.at = v.at
	if v.kind != unstable.String {
		return "must be a duration with its unit in quotes, like \"400ms\" or \"2s\", not " + describe(v)
	}
	d, err := time.ParseDuration(v.text)
	if err != nil {
		return strconv.Quote(v.text) + " is not a duration: write a number and a unit, like \"400ms\" or \"2s\""
	}
	s.val = d
	return ""
}

func (s *span) set() bool { return s.at.line > 0 }

// list is an array of strings.
type list struct {
	items []text
	at    pos
}

func (l *list) decode(v *value) string {
	l.at = v.at
	if v.kind != unstable.Array {
		return "must be a list of strings, like [\"10.0.0.9/32\"], not " + describe(v)
	}
	for _, item := range v.items {
		var t text
		if problem := t.decode(item); problem != "" {
			return "each item of the list " + problem
		}
		l.items = append(l.items, t)
	}
	return ""
}

// dict is a table of strings, in the order of the file.
type dict struct {
	items []pair
	at    pos
}

type pair struct {
	key string
	val text
}

func (d *dict) decode(v *value) string {
	d.at = v.at
	if v.table == nil {
		return "must be a table of strings, like { writer = \"bond0\" }, not " + describe(v)
	}
	for _, key := range v.table.keys {
		var t text
		if problem := t.decode(v.table.items[key].val); problem != "" {
			return strconv.Quote(key) + " " + problem
		}
		d.items = append(d.items, pair{key, t})
	}
	return ""
}

// describe names what stands in the file, for messages.
func describe(v *value) string {
	switch v.kind {
	case unstable.String:
		return "the string " + strconv.Quote(shorten(v.text))
	case unstable.Integer, unstable.Float, unstable.Bool:
		return shorten(v.text)
	case unstable.Array, unstable.ArrayTable:
		return "a list"
	case unstable.Table, unstable.InlineTable:
		return "a table"
	default:
		return "a date or time"
	}
}

// shorten keeps a message readable whatever stands in the file.
func shorten(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "..."
	}
	return s
}
