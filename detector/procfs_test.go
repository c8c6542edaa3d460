package detector

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
)

const statOfServer = "4242 (my (sql) d) S 1 4242 4242 0 -1 4194304 5000 0 3 0 10 20 0 0 20 0 37 0 123456 900000000 20000 " +
	"18446744073709551615 1 1 0 0 0 256 0 4096 2048 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 9\n"

func TestParseStat(t *testing.T) {
	got, err := parseStat([]byte(statOfServer))
	want := taskStat{pid: 4242, parent: 1, comm: "my (sql) d", state: 'S', flags: 4194304, pending: pendingKill, start: 123456, exitCode: 9}
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, bad := range []string{"", "1", "1 (x", "(x) S", "x (y) S 1 2", "1 (x) S 1 1 1 0 -1 4 0", strings.Replace(statOfServer, "4194304", "-4", 1)} {
		if s, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q: read as %+v", bad, s)
		}
	}
}

func TestParseStatOfThisProcess(t *testing.T) {
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	if s, err := parseStat(b); err != nil || s.pid != os.Getpid() || s.flags&(flagExiting|flagSignaled) != 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

// It is read twice for each probe: there is nothing but the name to keep.
func TestParseStatKeepsOnlyTheName(t *testing.T) {
	b := []byte(statOfServer)
	if n := testing.AllocsPerRun(100, func() { _, _ = parseStat(b) }); n > 1 {
		t.Errorf("%v allocations, want 1", n)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte(statOfServer))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseStat(b)
		if err != nil && s != (taskStat{}) && s.pid == 0 {
			t.Errorf("an error, and yet %+v", s)
		}
	})
}

func TestParseSocket(t *testing.T) {
	tests := []struct {
		line, local string
		state       uint8
		inode       uint64
	}{
		{"   0: 0100007F:0CEA 00000000:0000 0A 00000000:00000000 00:00000000 00000000   105        0 3141592 1 00 100 0 0 10 0", "127.0.0.1:3306", tcpListen, 3141592},
		{"   1: 00000000:0CEA 00000000:0000 0A 00000000:00000000 00:00000000 00000000   105        0 7 1 00 100 0 0 10 0", "0.0.0.0:3306", tcpListen, 7},
		{"   2: 64004D0A:0CEA 0B004D0A:9C40 01 00000000:00000000 00:00000000 00000000   105        0 8 1 00 100 0 0 10 0", "10.77.0.100:3306", 1, 8},
		{"   0: 00000000000000000000000000000000:0CEA 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000   105        0 9 1 00 100 0 0 10 0", "[::]:3306", tcpListen, 9},
		{"   3: B80D0120000000000000000001000000:0CEA 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000   105        0 9 1 00 100 0 0 10 0", "[2001:db8::1]:3306", tcpListen, 9},
		{"   4: 0000000000000000FFFF00000100007F:0CEA 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000   105        0 9 1 00 100 0 0 10 0", "127.0.0.1:3306", tcpListen, 9},
	}
	for _, test := range tests {
		want := tcpSocket{local: netip.MustParseAddrPort(test.local), state: test.state, inode: test.inode}
		if got, ok := parseSocket(test.line); !ok || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", test.line, got, ok, want)
		}
	}
	header := "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
	for _, bad := range []string{"", header, strings.Replace(tests[0].line, "0CEA", "0CEAA", 1), strings.Replace(tests[0].line, "0100007F", "0100007", 1)} {
		if s, ok := parseSocket(bad); ok {
			t.Errorf("%q: read as %+v", bad, s)
		}
	}
}

func FuzzParseSocket(f *testing.F) {
	f.Add("   0: 0100007F:0CEA 00000000:0000 0A 00000000:00000000 00:00000000 00000000   105        0 3141592 1 00 100 0 0 10 0")
	f.Fuzz(func(t *testing.T, line string) {
		if s, ok := parseSocket(line); ok && !s.local.IsValid() {
			t.Errorf("%q: %+v", line, s)
		}
	})
}

func TestListeningInodes(t *testing.T) {
	at := func(a string, inode uint64) tcpSocket {
		return tcpSocket{local: netip.MustParseAddrPort(a), state: tcpListen, inode: inode}
	}
	all := []tcpSocket{at("127.0.0.1:3306", 1), at("0.0.0.0:3306", 2), at("[::]:3306", 3), at("127.0.0.1:3307", 4), at("10.0.0.1:3306", 5)}
	if got := listeningInodes(all, netip.MustParseAddrPort("127.0.0.1:3306")); !slices.Equal(got, []uint64{1, 2, 3}) {
		t.Errorf("got %v", got)
	}
}

func addrs(s string) (as []netip.Addr) {
	if s == "unknown" {
		return nil
	}
	as = []netip.Addr{}
	for f := range strings.FieldsSeq(s) {
		as = append(as, netip.MustParseAddr(f))
	}
	return as
}

func TestListens(t *testing.T) {
	both := "0.0.0.0 ::"
	tests := []struct {
		rule   string
		vars   string // name=value, separated by semicolons
		kernel string
		want   string
	}{
		{"the port is not known", "", "", "unknown"},
		{"no networking", "skip_networking=ON;port=3306", "0.0.0.0", ""},
		{"no networking, MariaDB", "skip_networking=ON;port=0", "", ""},
		{"not given: all", "port=3306", "", both},
		{"star: all", "port=3306;bind_address=*", "", both},
		{"empty: all", "port=3306;bind_address=", "", both},
		{"the IPv6 wildcard takes IPv4 too", "port=3306;bind_address=::", "", both},
		{"the IPv4 wildcard takes only IPv4", "port=3306;bind_address=0.0.0.0", "", "0.0.0.0"},
		{"one", "port=3306;bind_address=127.0.0.1", "", "127.0.0.1"},
		{"a list", "port=3306;bind_address=::1, 10.0.0.1,127.0.0.1", "", "10.0.0.1 127.0.0.1 ::1"},
		{"another namespace is out of reach", "port=3306;bind_address=10.0.0.1/blue,10.0.0.2", "", "10.0.0.2"},
		{"a name is unknown", "port=3306;bind_address=db1.example.com", "", "unknown"},
		{"mapped", "port=3306;bind_address=::ffff:10.0.0.1", "", "10.0.0.1"},
		{"the kernel knows better", "port=3306;bind_address=db1.example.com", "10.0.0.1", "10.0.0.1"},
		{"the kernel knows better, wildcard", "port=3306;bind_address=*", "::", both},
		{"twice", "port=3306", "0.0.0.0 ::", both},
	}
	for _, test := range tests {
		t.Run(test.rule, func(t *testing.T) {
			vars := map[string]string{}
			for kv := range strings.SplitSeq(test.vars, ";") {
				k, v, ok := strings.Cut(kv, "=")
				if ok {
					vars[k] = v
				}
			}
			got := listens(vars, func(port uint16) []netip.Addr {
				if port != 3306 {
					t.Errorf("asked for port %d", port)
				}
				return addrs(test.kernel)
			})
			if want := addrs(test.want); !slices.Equal(got, want) || (got == nil) != (want == nil) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func FuzzParseBindAddress(f *testing.F) {
	for _, s := range []string{"", "*", "::", "127.0.0.1,10.0.0.1/ns", "fe80::1%eth0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		as := parseBindAddress(s)
		if !slices.IsSortedFunc(as, netip.Addr.Compare) || len(slices.Compact(slices.Clone(as))) != len(as) {
			t.Errorf("%q: %v is not sorted or has doubles", s, as)
		}
		if slices.Contains(as, netip.IPv6Unspecified()) && !slices.Contains(as, netip.IPv4Unspecified()) {
			t.Errorf("%q: %v: half a wildcard", s, as)
		}
		for _, a := range as {
			if !a.IsValid() || a.Is4In6() {
				t.Errorf("%q: %v", s, a)
			}
		}
	})
}
