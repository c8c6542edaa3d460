package config

import (
	"reflect"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// decode fills the raw structs from a tree and reports the keys that have no field and the values that do not fit.
func decode(root *table, r *report) *rawFile {
	raw := new(rawFile)
	d := decoder{report: r, known: Keys()}
	d.fill(reflect.ValueOf(raw).Elem(), root, "")
	return raw
}

type decoder struct {
	*report
	known []string
}

func (d *decoder) fill(dst reflect.Value, t *table, where string) {
	dst.FieldByName("Header").Set(reflect.ValueOf(header{At: t.at}))
	var names []string
	for i := range dst.NumField() {
		name := dst.Type().Field(i).Tag.Get("toml")
		if name == "" {
			continue
		}
		names = append(names, name)
		if e := t.items[name]; e != nil {
			d.field(dst.Field(i), e, where, name)
		}
	}
	for _, key := range t.keys {
		if !slices.Contains(names, key) {
			d.unknown(t.items[key].at, where, key, names)
		}
	}
}

func (d *decoder) field(dst reflect.Value, e *entry, where, name string) {
	if l, ok := dst.Addr().Interface().(leaf); ok {
		if problem := l.decode(e.val); problem != "" {
			d.bad(e.val.at, keyIn(where, name), "%s", problem)
		}
		return
	}
	if dst.Kind() == reflect.Slice {
		d.tables(dst, e, name)
		return
	}
	if e.val.table == nil {
		d.bad(e.at, keyIn(where, name), "must be a table: write [%s], with its keys on the lines below", name)
		return
	}
	d.fill(dst, e.val.table, "["+name+"]")
}

// tables fills an array of tables, [[name]].
func (d *decoder) tables(dst reflect.Value, e *entry, name string) {
	items := e.val.items
	isTables := e.val.kind == unstable.ArrayTable || e.val.kind == unstable.Array &&
		!slices.ContainsFunc(items, func(v *value) bool { return v.table == nil })
	if !isTables {
		d.bad(e.at, name, "there can be several: write [[%s]] with two brackets, once for each", name)
		return
	}
	dst.Set(reflect.MakeSlice(dst.Type(), len(items), len(items)))
	for i, item := range items {
		d.fill(dst.Index(i), item.table, "[["+name+"]]")
	}
}

// unknown reports a key that nobody knows, with the most likely remedy.
func (d *decoder) unknown(at pos, where, key string, names []string) {
	if homes := d.homes(key); len(homes) > 0 {
		d.bad(at, keyIn(where, key), "unknown key here: it belongs %s", strings.Join(homes, " or "))
		return
	}
	if near := nearest(key, names); near != "" {
		d.bad(at, keyIn(where, key), "unknown key: did you mean %q?", near)
		return
	}
	place := where
	if place == "" {
		place = "the top of the file"
	}
	d.bad(at, keyIn(where, key), "unknown key: %s takes %s", place, strings.Join(names, ", "))
}

// homes returns where a key that is unknown in one place is known.
func (d *decoder) homes(key string) []string {
	var homes []string
	for _, known := range d.known {
		if known == key {
			homes = append(homes, "at the top of the file, above the first table")
		} else if home, found := strings.CutSuffix(known, " "+key); found {
			homes = append(homes, "under "+home)
		}
	}
	return homes
}

// Keys lists every key that a file may have, with its table, as in "cluster" or "[[node]] name".
func Keys() []string { return keysOf(reflect.TypeFor[rawFile](), "") }

func keysOf(t reflect.Type, where string) []string {
	var keys []string
	for f := range t.Fields() {
		name := f.Tag.Get("toml")
		switch {
		case name == "":
		case f.Type.Kind() == reflect.Slice:
			keys = append(keys, keysOf(f.Type.Elem(), "[["+name+"]]")...)
		case reflect.PointerTo(f.Type).Implements(reflect.TypeFor[leaf]()):
			keys = append(keys, keyIn(where, name))
		default:
			keys = append(keys, keysOf(f.Type, "["+name+"]")...)
		}
	}
	return keys
}

// keyIn names a key of a table for messages.
func keyIn(where, key string) string {
	if where == "" {
		return key
	}
	return where + " " + key
}

func join(parts []string) string { return strings.Join(parts, ".") }
