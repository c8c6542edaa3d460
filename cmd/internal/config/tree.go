package config

import (
	"bytes"
	"errors"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2/unstable"
)

// pos is a place in the file; the zero value means that there is none.
type pos struct{ line int }

// value is a TOML value that knows where it stands.
type value struct {
	kind  unstable.Kind
	at    pos
	text  string   // scalars: the decoded string, else the value as written
	items []*value // Array, ArrayTable
	table *table   // Table, InlineTable
}

// table is a TOML table whose keys keep the order of the file.
type table struct {
	at    pos
	keys  []string
	items map[string]*entry
	// closed is set once the table was opened by its own header or written inline: it must not be opened again.
	closed bool
}

type entry struct {
	at  pos
	val *value
}

func newTable(at pos) *table { return &table{at: at, items: map[string]*entry{}} }

func (t *table) set(key string, at pos, v *value) {
	t.keys = append(t.keys, key)
	t.items[key] = &entry{at: at, val: v}
}

// treeBuilder turns the parser's flat list of expressions into a tree. The parser reports syntax only; that no key and
// no table is written twice is checked here.
type treeBuilder struct {
	*report
	parser unstable.Parser
	root   *table
	open   *table // the table that key-values go into
	where  string // its name for messages
}

// parseTree returns the tree of a document. On a syntax error it reports the place and returns nil.
func parseTree(data []byte, r *report) *table {
	if i := invalidUTF8(data); i >= 0 {
		r.bad(pos{lineOf(data, i)}, "", "the file is not UTF-8 text: save it as UTF-8")
		return nil
	}
	b := &treeBuilder{report: r, root: newTable(pos{1})}
	b.open = b.root
	// The parser tells places by the distance to the end of the backing array, so that must be the document's own.
	b.parser.Reset(bytes.Clone(data))
	for b.parser.NextExpression() {
		b.expression(b.parser.Expression())
	}
	if err := b.parser.Error(); err != nil {
		b.syntax(err)
		return nil
	}
	return b.root
}

func invalidUTF8(data []byte) int {
	for i := 0; i < len(data); {
		c, size := utf8.DecodeRune(data[i:])
		if c == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}

func lineOf(data []byte, offset int) int { return 1 + bytes.Count(data[:offset], []byte("\n")) }

func (b *treeBuilder) syntax(err error) {
	at, text := pos{}, err.Error()
	var pe *unstable.ParserError
	if errors.As(err, &pe) {
		text = pe.Message
		if offset := cap(b.parser.Data()) - cap(pe.Highlight); offset >= 0 && offset <= len(b.parser.Data()) {
			at = pos{lineOf(b.parser.Data(), offset)}
		}
	}
	b.bad(at, "", "this is not TOML: %s; nothing after this line was read. Strings need quotes, lists need [ ]", text)
}

func (b *treeBuilder) expression(n *unstable.Node) {
	switch n.Kind {
	case unstable.Table:
		b.openTable(n)
	case unstable.ArrayTable:
		b.openArrayTable(n)
	case unstable.KeyValue:
		b.keyValue(b.open, b.where, n)
	}
}

// key returns the parts of a node's dotted key and the place of the first.
func (b *treeBuilder) key(n *unstable.Node) ([]string, pos) {
	var parts []string
	var at pos
	for it := n.Key(); it.Next(); {
		if len(parts) == 0 {
			at = b.at(it.Node())
		}
		parts = append(parts, string(it.Node().Data))
	}
	return parts, at
}

func (b *treeBuilder) at(n *unstable.Node) pos {
	return pos{lineOf(b.parser.Data(), int(n.Raw.Offset))}
}

func (b *treeBuilder) openTable(n *unstable.Node) {
	parts, at := b.key(n)
	b.where = "[" + join(parts) + "]"
	last := parts[len(parts)-1]
	b.open = newTable(at) // where the keys of a header with an error go, so that they are not blamed too
	parent := b.descend(b.root, parts[:len(parts)-1], b.where, at)
	if parent == nil {
		return
	}
	old := parent.items[last]
	switch {
	case old == nil:
		b.open.closed = true
		parent.set(last, at, &value{kind: unstable.Table, at: at, table: b.open})
	case old.val.table != nil && !old.val.table.closed:
		old.val.table.closed = true
		b.open = old.val.table
	default:
		b.bad(at, b.where, "is here a second time, the first is in line %d: merge the two", old.at.line)
	}
}

func (b *treeBuilder) openArrayTable(n *unstable.Node) {
	parts, at := b.key(n)
	b.where = "[[" + join(parts) + "]]"
	last := parts[len(parts)-1]
	b.open = newTable(at)
	parent := b.descend(b.root, parts[:len(parts)-1], b.where, at)
	if parent == nil {
		return
	}
	item := &value{kind: unstable.Table, at: at, table: b.open}
	old := parent.items[last]
	switch {
	case old == nil:
		parent.set(last, at, &value{kind: unstable.ArrayTable, at: at, items: []*value{item}})
	case old.val.kind == unstable.ArrayTable:
		old.val.items = append(old.val.items, item)
	default:
		b.bad(at, b.where, "line %d has %q already in another form: write [[%s]] in both places", old.at.line, last, last)
	}
}

func (b *treeBuilder) keyValue(t *table, where string, n *unstable.Node) {
	parts, at := b.key(n)
	last := parts[len(parts)-1]
	t = b.descend(t, parts[:len(parts)-1], where, at)
	if t == nil {
		return
	}
	if old := t.items[last]; old != nil {
		b.bad(at, keyIn(where, join(parts)), "is set twice, the first time in line %d: delete one", old.at.line)
		return
	}
	t.set(last, at, b.value(n.Value(), at))
}

// descend follows a dotted key, making the tables on its way.
func (b *treeBuilder) descend(t *table, parts []string, where string, at pos) *table {
	for _, part := range parts {
		e := t.items[part]
		if e == nil {
			next := newTable(at)
			t.set(part, at, &value{kind: unstable.Table, at: at, table: next})
			t = next
			continue
		}
		v := e.val
		if v.kind == unstable.ArrayTable {
			v = v.items[len(v.items)-1]
		}
		if v.table == nil || v.kind == unstable.InlineTable {
			b.bad(at, where, "%q is no table that can be added to, it has its value from line %d", part, e.at.line)
			return nil
		}
		t = v.table
	}
	return t
}

// value copies a node: the parser uses the memory again for the next expression.
func (b *treeBuilder) value(n *unstable.Node, at pos) *value {
	v := &value{kind: n.Kind, at: at, text: string(n.Data)}
	if n.Raw.Length > 0 {
		v.at = b.at(n)
	}
	switch n.Kind {
	case unstable.Array:
		for it := n.Children(); it.Next(); {
			v.items = append(v.items, b.value(it.Node(), at))
		}
	case unstable.InlineTable:
		v.table = newTable(v.at)
		v.table.closed = true
		for it := n.Children(); it.Next(); {
			b.keyValue(v.table, b.where, it.Node())
		}
	}
	return v
}
