package lab

import (
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGreetingVersion(t *testing.T) {
	maria := "58000000" + "0a" + hex.EncodeToString([]byte("10.11.19-MariaDB-lab-db1\x00")) + "04000000"
	tests := []struct {
		name, in, want string
		err            error
		code           uint16
	}{
		{name: "MariaDB", in: maria, want: "10.11.19-MariaDB-lab-db1"},
		{name: "nothing yet", in: "", err: errGreetingShort},
		{name: "header only", in: "58000000", err: errGreetingShort},
		{name: "half a version", in: maria[:24], err: errGreetingShort},
		{name: "too many connections", in: "17000000 ff 1004 546f6f", code: 1040},
		{name: "half an error", in: "17000000 ff 10", err: errGreetingShort},
		{name: "another protocol", in: hex.EncodeToString([]byte("SSH-2.0-x")), err: errNoGreeting},
		{name: "a version without end", in: "58000000 0a" + strings.Repeat("41", 80), err: errNoGreeting},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := greetingVersion(unhex(t, tt.in))
			var refused *ServerError
			if tt.code != 0 && (!errors.As(err, &refused) || refused.Code != tt.code) {
				t.Errorf("error = %v, want server error %d", err, tt.code)
			}
			if tt.code == 0 && !errors.Is(err, tt.err) || got != tt.want {
				t.Errorf("greetingVersion = %q, %v; want %q, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

func FuzzGreetingVersion(f *testing.F) {
	f.Add(unhex(f, "58000000 0a 31302e31 00 04000000"))
	f.Add(unhex(f, "17000000 ff 1004"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, err := greetingVersion(b); err == nil && !strings.Contains(string(b), v+"\x00") {
			t.Errorf("version %q is not in the greeting", v)
		}
	})
}

// A request in which 02:77:00:00:00:0b announces 10.77.0.100.
const gratuitous = "ffffffffffff 02770000000b 0806 0001 0800 06 04 0001 02770000000b 0a4d0064 ffffffffffff 0a4d0064"

func TestParseARP(t *testing.T) {
	f, err := parseARP(unhex(t, gratuitous+"0000000000"))
	if err != nil {
		t.Fatal(err)
	}
	if !f.Gratuitous() || f.Reply || f.Probe() || f.SenderIP != testVIP || f.Source.String() != "02:77:00:00:00:0b" {
		t.Errorf("read %+v", f)
	}
	probe, err := parseARP(unhex(t, strings.Replace(gratuitous, "02770000000b 0a4d0064", "02770000000b 00000000", 1)))
	if err != nil || !probe.Probe() || probe.Gratuitous() || probe.TargetIP != testVIP {
		t.Errorf("probe: read %+v, %v", probe, err)
	}
	for _, bad := range []string{"", gratuitous[:60], strings.Replace(gratuitous, "0806", "0800", 1),
		strings.Replace(gratuitous, "06 04", "08 04", 1), strings.Replace(gratuitous, "04 0001", "04 0003", 1)} {
		if f, err := parseARP(unhex(t, bad)); err == nil {
			t.Errorf("parseARP(%s) = %+v, want an error", bad, f)
		}
	}
}

// What 02:77:00:00:00:0b says to all nodes: fd77::100 is here.
const advertisement = "333300000001 02770000000b 86dd 6000 0000 0020 3a ff fd77000000000000 0000000000000100" +
	"ff02000000000000 0000000000000001 8800 572e 20000000 fd77000000000000 0000000000000100 0201 02770000000b"

func TestParseND(t *testing.T) {
	f, err := parseND(unhex(t, advertisement+"0000"))
	vip := DefaultVIP6().Addr()
	if err != nil || !f.announces() || f.target != vip || f.source != vip || f.from != [6]byte{2, 0x77, 0, 0, 0, 0x0b} {
		t.Errorf("read %+v, %v", f, err)
	}
	for _, bad := range []string{"", advertisement[:len(advertisement)-8], strings.Replace(advertisement, "86dd", "0800", 1), strings.Replace(advertisement, "3a ff", "3a 40", 1),
		strings.Replace(advertisement, "8800", "8700", 1), strings.Replace(advertisement, "0020 3a", "0021 3a", 1), strings.Replace(advertisement, "0020 3a", "0028 3a", 1)} {
		if f, err := parseND(unhex(t, bad)); err == nil {
			t.Errorf("parseND(%s) = %+v, want an error", bad, f)
		}
	}
}

func FuzzParseND(f *testing.F) {
	f.Add(unhex(f, advertisement))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := parseND(b); err == nil && (!n.target.Is6() || n.solicited && !n.advertises) {
			t.Errorf("read %+v", n)
		}
	})
}

func FuzzParseARP(f *testing.F) {
	f.Add(unhex(f, gratuitous))
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := parseARP(b); err == nil && (len(a.Source) != 6 || !a.SenderIP.Is4() || !a.TargetIP.Is4()) {
			t.Errorf("read %+v", a)
		}
	})
}

// RTM_NEWADDR of 10.77.0.100/32 with a lifetime of 3 s, as a kernel on a little-endian machine sends it.
const newAddr = "34000000 1400 0000 00000000 00000000" + "02 20 80 00 02000000" +
	"0800 0100 0a4d0064" + "0800 0200 0a4d0064" + "1400 0600 03000000 03000000 00000000 00000000"

func TestParseNotifications(t *testing.T) {
	msg := unhex(t, newAddr)
	msg[0] = byte(len(msg))
	events, err := parseNotifications(append(msg, msg...))
	if err != nil || len(events) != 2 {
		t.Fatalf("read %+v, %v", events, err)
	}
	if e := events[1]; e.addr != testVIP || !e.added || e.valid != 3*time.Second {
		t.Errorf("read %+v", e)
	}
	if _, err := parseNotifications(msg[:40]); !errors.Is(err, errShortMessage) {
		t.Errorf("a cut message: %v, want errShortMessage", err)
	}
}

func FuzzParseNotifications(f *testing.F) {
	f.Add(unhex(f, newAddr))
	f.Fuzz(func(t *testing.T, b []byte) {
		events, _ := parseNotifications(b)
		for _, e := range events {
			if e.link == "" && e.addr == (netip.Addr{}) {
				t.Errorf("an event of nothing: %+v", e)
			}
		}
	})
}

func TestParseStat(t *testing.T) {
	text := "4711 (a (b) c) S 1 4711 4711 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 987654 1000000 2048 184467 1 1"
	got, err := parseStat(text)
	if err != nil || got != (procStat{state: 'S', ticks: 300, start: 987654, pages: 2048}) {
		t.Errorf("parseStat = %+v, %v", got, err)
	}
	for _, bad := range []string{"", "1 (x) S 1 2", "no parenthesis"} {
		if _, err := parseStat(bad); err == nil {
			t.Errorf("parseStat(%q) succeeded", bad)
		}
	}
}
