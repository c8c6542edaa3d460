package netio

import (
	"io"
	"net"
	"testing"
)

// A connection that comes and one that goes each change the Stir, of either family, and nothing else does.
func TestStirTellsOfConnections(t *testing.T) {
	must(t, setUp("lo", true))
	read := func() Stir {
		s, err := ReadStir()
		must(t, err)
		return s
	}
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		ln, err := net.Listen("tcp", at)
		must(t, err)
		defer ln.Close()
		before := read()
		if again := read(); again != before {
			t.Errorf("%s: %+v became %+v without a connection", at, before, again)
		}
		out, err := net.Dial("tcp", ln.Addr().String())
		must(t, err)
		defer out.Close()
		in, err := ln.Accept()
		must(t, err)
		defer in.Close()
		with := read()
		if with == before || with.Accepted != before.Accepted+1 {
			t.Errorf("%s: %+v became %+v with a connection", at, before, with)
		}
		must(t, out.Close())
		if _, err := io.ReadAll(in); err != nil {
			t.Error(err)
		}
		must(t, in.Close())
		poll(t, "the end of a connection to be told", func() bool { return read().Open != with.Open })
	}
}

func TestParseStir(t *testing.T) {
	const names = "Ip: Forwarding\nIp: 1\nTcp: ActiveOpens PassiveOpens CurrEstab\n"
	for _, tt := range []struct {
		text string
		want Stir
		fine bool
	}{
		{names + "Tcp: 7 8 9\nUdp: X\nUdp: 1\n", Stir{Accepted: 8, Open: 9}, true},
		{names + "Tcp: 7 8\n", Stir{}, false},
		{names + "Tcp: 7 x 9\n", Stir{}, false},
		{names, Stir{}, false},
		{"Tcp: ActiveOpens\nTcp: 7\n", Stir{}, false},
		{"", Stir{}, false},
	} {
		got, err := parseStir([]byte(tt.text))
		if (err == nil) != tt.fine || err == nil && got != tt.want {
			t.Errorf("%q: %+v, %v; want %+v, fine: %t", tt.text, got, err, tt.want, tt.fine)
		}
	}
}
