package detector

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// listens says on which addresses the server accepts TCP connections: an empty list for none, nil for unknown. What the
// kernel shows at the server's port in our own network namespace is the truth about who can be reached there, so it goes
// before what the variables declare. They are used when the kernel shows nothing, as with a server in a container whose
// port is forwarded to it.
func listens(vars map[string]string, kernel func(port uint16) []netip.Addr) []netip.Addr {
	if on := strings.ToUpper(vars["skip_networking"]); on == "ON" || on == "1" {
		return []netip.Addr{}
	}
	port, err := strconv.ParseUint(vars["port"], 10, 16)
	if err != nil {
		return nil
	}
	if port == 0 {
		return []netip.Addr{}
	}
	if found := kernel(uint16(port)); len(found) > 0 {
		return wildcards(found)
	}
	declared, ok := vars["bind_address"]
	if !ok {
		declared = "*" // NULL on MariaDB: the option was not given
	}
	return parseBindAddress(declared)
}

// parseBindAddress reads bind_address: empty or "*" for all, one address, or a list with commas; MySQL 8 allows a network
// namespace after a slash. An address in another namespace is left out. A host name makes the whole unknown: it was
// resolved when the server started, and we do not guess to what.
func parseBindAddress(s string) []netip.Addr {
	found := []netip.Addr{}
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		if host, namespace, ok := strings.Cut(part, "/"); ok {
			if namespace != "" {
				continue
			}
			part = host
		}
		if part == "" || part == "*" {
			part = "::"
		}
		a, err := netip.ParseAddr(part)
		if err != nil {
			return nil
		}
		found = append(found, a.Unmap())
	}
	return wildcards(found)
}

// wildcards sorts the addresses and completes the wildcard: servers of both families switch IPV6_V6ONLY off for "::", so
// that it takes IPv4 connections too.
func wildcards(as []netip.Addr) []netip.Addr {
	if slices.Contains(as, netip.IPv6Unspecified()) {
		as = append(as, netip.IPv4Unspecified())
	}
	slices.SortFunc(as, netip.Addr.Compare)
	return slices.Compact(as)
}
