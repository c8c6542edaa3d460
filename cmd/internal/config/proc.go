package config

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"
)

// listeners finds the addresses of listening sockets of one port in the text of /proc/net/tcp or tcp6. Lines that it
// does not understand are passed over.
func listeners(data []byte, port uint16) []netip.Addr {
	const listening = "0A" // TCP_LISTEN, include/net/tcp_states.h
	var out []netip.Addr
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 4 || f[3] != listening {
			continue
		}
		addr, p, found := strings.Cut(f[1], ":")
		n, err := strconv.ParseUint(p, 16, 16)
		if !found || err != nil || uint16(n) != port {
			continue
		}
		if a, ok := procAddr(addr); ok {
			out = append(out, a)
		}
	}
	return out
}

// procAddr decodes an address as the kernel prints it: each 32-bit word of the network's byte order in hexadecimal, as
// the machine reads it.
func procAddr(s string) (netip.Addr, bool) {
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw)%4 != 0 {
		return netip.Addr{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	a, ok := netip.AddrFromSlice(raw)
	return a.Unmap(), ok
}
