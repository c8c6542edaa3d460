package detector

import (
	"encoding/binary"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
)

// fake is a server that speaks just enough of the MySQL protocol: a greeting, a login that always succeeds, and answers
// to queries that a function gives.
type fake struct {
	l     net.Listener
	greet func(net.Conn) bool // instead of the greeting and the login; false to close
	reply func(query string) reply

	mu      sync.Mutex
	conns   []net.Conn
	users   []string // who has logged in
	queries []string
}

// reply is a result set, or an error, or silence.
type reply struct {
	columns []string
	rows    [][]string // "NULL" is NULL
	number  uint16
	hang    bool
}

func newFake(t testing.TB, f *fake) *fake {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.l = l
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conns = append(f.conns, c)
			f.mu.Unlock()
			wg.Go(func() { f.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		f.dropAll()
		wg.Wait()
	})
	return f
}

func (f *fake) address() string { return f.l.Addr().String() }

// dropAll closes all connections and goes on listening.
func (f *fake) dropAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		c.Close()
	}
	f.conns = nil
}

func (f *fake) accepted() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.conns)
}

// loggedIn names who has logged in, in this order.
func (f *fake) loggedIn() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.users, " ")
}

func (f *fake) asked(query string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, q := range f.queries {
		if q == query {
			n++
		}
	}
	return n
}

func (f *fake) serve(c net.Conn) {
	defer c.Close()
	if f.greet != nil && !f.greet(c) {
		return
	}
	if f.greet == nil && !f.login(c) {
		return
	}
	for {
		b, _, err := readPacket(c)
		if err != nil || len(b) == 0 || b[0] != 3 { // COM_QUERY
			return
		}
		q := string(b[1:])
		f.mu.Lock()
		f.queries = append(f.queries, q)
		f.mu.Unlock()
		r := f.reply(q)
		switch {
		case r.hang:
			io.Copy(io.Discard, c)
			return
		case r.number != 0:
			c.Write(packet(1, errorPacket(r.number)))
		default:
			c.Write(r.encode())
		}
	}
}

func (f *fake) login(c net.Conn) bool {
	c.Write(packet(0, greeting()))
	b, seq, err := readPacket(c)
	if err != nil {
		return false
	}
	const fixed = 32 // of HandshakeResponse41: flags, the largest packet, a character set, a filler
	if len(b) > fixed {
		user, _, _ := strings.Cut(string(b[fixed:]), "\x00")
		f.mu.Lock()
		f.users = append(f.users, user)
		f.mu.Unlock()
	}
	c.Write(packet(seq+1, []byte{0, 0, 0, 2, 0, 0, 0}))
	return true
}

func readPacket(c net.Conn) ([]byte, byte, error) {
	var h [4]byte
	if _, err := io.ReadFull(c, h[:]); err != nil {
		return nil, 0, err
	}
	b := make([]byte, int(h[0])|int(h[1])<<8|int(h[2])<<16)
	_, err := io.ReadFull(c, b)
	return b, h[3], err
}

func packet(seq byte, payload []byte) []byte {
	n := len(payload)
	return append([]byte{byte(n), byte(n >> 8), byte(n >> 16), seq}, payload...)
}

func greeting() []byte {
	b := append([]byte{10}, "8.4.9-fake\x00"...)
	b = append(b, 1, 0, 0, 0)
	b = append(b, "12345678\x00"...)
	const capabilities = 0x00000200 | 0x00008000 | 0x00080000 // PROTOCOL_41, SECURE_CONNECTION, PLUGIN_AUTH
	b = append(b, capabilities&0xff, capabilities>>8&0xff, 45, 2, 0, capabilities>>16&0xff, capabilities>>24&0xff, 21)
	b = append(b, make([]byte, 10)...)
	b = append(b, "123456789012\x00"...)
	return append(b, "mysql_native_password\x00"...)
}

func errorPacket(number uint16) []byte {
	b := binary.LittleEndian.AppendUint16([]byte{0xff}, number)
	return append(b, "#HY000a message of the server"...)
}

func lenenc(s string) []byte {
	if s == "NULL" {
		return []byte{0xfb}
	}
	if len(s) > 250 {
		return append([]byte{0xfc, byte(len(s)), byte(len(s) >> 8)}, s...)
	}
	return append([]byte{byte(len(s))}, s...)
}

func (r reply) encode() []byte {
	eof := []byte{0xfe, 0, 0, 2, 0}
	seq := byte(1)
	var out []byte
	add := func(b []byte) { out = append(out, packet(seq, b)...); seq++ }
	add([]byte{byte(len(r.columns))})
	for _, name := range r.columns {
		b := slices.Concat(lenenc("def"), lenenc(""), lenenc(""), lenenc(""), lenenc(name), lenenc(name))
		add(append(b, 12, 45, 0, 0, 1, 0, 0, 253, 0, 0, 0, 0, 0)) // VAR_STRING
	}
	add(eof)
	for _, row := range r.rows {
		var b []byte
		for _, v := range row {
			b = append(b, lenenc(v)...)
		}
		add(b)
	}
	add(eof)
	return out
}

// one is a result of one row, from a map by column name.
func one(m map[string]string) reply {
	names := slices.Sorted(maps.Keys(m))
	var row []string
	for _, n := range names {
		row = append(row, m[n])
	}
	return reply{columns: names, rows: [][]string{row}}
}

// variables is the answer to SHOW GLOBAL VARIABLES.
func variables(m map[string]string) reply {
	r := reply{columns: []string{"Variable_name", "Value"}}
	for k, v := range m {
		r.rows = append(r.rows, []string{k, v})
	}
	return r
}

// mysql84 answers as MySQL 8.4 does; status is the answer to SHOW REPLICA STATUS.
func mysql84(status func() reply) func(string) reply {
	return func(q string) reply {
		switch {
		case q == askMariaDB:
			return reply{number: errUnknownVariable}
		case q == askVariables:
			return variables(map[string]string{"version": "8.4.9", "port": "1", "bind_address": "10.0.0.1", "super_read_only": "ON",
				"read_only": "ON", "gtid_executed": "x", "skip_networking": "OFF"})
		case strings.HasPrefix(q, "SELECT @@global.read_only AS read_only, @@global.super_read_only AS super_read_only"):
			m := map[string]string{"read_only": "0", "super_read_only": "0"}
			if strings.Contains(q, "gtid_executed") {
				m["gtid"] = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5,4e11fa47-71ca-11e1-9e33-c80aa9429562:1"
			}
			return one(m)
		case q == "SHOW REPLICA STATUS":
			return status()
		}
		return reply{number: 1064}
	}
}
