package detector

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrMayNotEnd means that the account may not see or end the sessions of others. Its text names what it lacks.
var ErrMayNotEnd = errors.New("the account may not end sessions of clients")

// nameWait bounds the search for the addresses of all names of clients together.
const nameWait = 2 * time.Second

// SessionsEnded counts what became of the sessions of clients.
type SessionsEnded struct {
	// Killed have been ended, or were about to end by themselves.
	Killed int
	// Unknown are the clients of which no session was found, or more than one.
	Unknown int
	// Spared belong to replication or to Remora itself.
	Spared int
	// Refused may only be ended with SYSTEM_USER.
	Refused int
}

// EndSessions ends, with KILL and on a connection of its own, the sessions of clients that talk to another server now. of is called
// once, after the list of sessions was read. It returns the clients' ends of old connections to a port of this machine, those
// that are there still and whose ends no other connection has.
//
// A session is ended only if it alone is shown with that address and port, if it is older than the connection of this call, and
// if it is none of replication, of the server or of Remora. Where the server shows a client's name, that name must have the address.
// What is not certain is left alone. ErrMayNotEnd says that nothing was tried for want of privileges.
func (a *Actor) EndSessions(ctx context.Context, of func(port uint16) ([]netip.AddrPort, error)) (out SessionsEnded, err error) {
	err = a.asKiller(ctx, func(l *line) error {
		port, err := strconv.ParseUint(l.dialect.vars["port"], 10, 16)
		if err != nil {
			return fmt.Errorf("the server's port %q: %w", l.dialect.vars["port"], err)
		}
		rows, err := l.query(ctx, statementWait, askProcesses)
		if err != nil {
			return err
		}
		ends, err := of(uint16(port))
		if err != nil {
			return err
		}
		names, cancel := context.WithTimeout(ctx, nameWait)
		defer cancel()
		shown := a.hosts(names, rows)
		for _, end := range ends {
			found := shown.of(end)
			switch {
			case len(found) != 1 || !older(found[0]["id"], l.thread):
				out.Unknown++
				continue
			case !isClient(found[0], l.as.User) || found[0]["user"] == l.as.ReplicationUser:
				out.Spared++
				continue
			}
			ours, err := l.kill(ctx, found[0]["id"])
			switch {
			case err != nil:
				return err
			case ours:
				out.Killed++
			default:
				out.Refused++
			}
		}
		return nil
	})
	return out, err
}

// MayEndSessions asks the server whether EndSessions could. ErrMayNotEnd says that it could not.
func (a *Actor) MayEndSessions(ctx context.Context) error {
	return a.asKiller(ctx, func(*line) error { return nil })
}

// asKiller gives fn a new connection, whose account may see and end sessions.
func (a *Actor) asKiller(ctx context.Context, fn func(*line) error) error {
	l, err := a.as.Load().dial(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	rows, err := l.query(ctx, statementWait, askGrants)
	if err != nil {
		return err
	}
	if missing := lacking(rows, l.dialect.family().KillPrivileges()); len(missing) > 0 {
		return fmt.Errorf("%w: it lacks %s: grant what 'remora mysql grants --kill' prints", ErrMayNotEnd, strings.Join(missing, ", "))
	}
	return fn(l)
}

// older reports whether a session began before another one. The server numbers them in that order.
func older(thread, than string) bool {
	t, err := strconv.ParseUint(thread, 10, 64)
	u, err2 := strconv.ParseUint(than, 10, 64)
	return err == nil && err2 == nil && t < u
}

// hosts are sessions by the port of their clients, as HOST of the process list says it: address:port, or name:port.
type hosts struct {
	ctx    context.Context // of the search for addresses
	lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
	names  map[string][]netip.Addr // what was found
	byPort map[string][]row
}

func (a *Actor) hosts(ctx context.Context, sessions []row) *hosts {
	h := &hosts{ctx: ctx, lookup: a.lookup, names: map[string][]netip.Addr{}, byPort: map[string][]row{}}
	for _, r := range sessions {
		if i := strings.LastIndexByte(r["host"], ':'); i >= 0 {
			port := r["host"][i+1:]
			h.byPort[port] = append(h.byPort[port], r)
		}
	}
	return h
}

// of returns the sessions that are shown with a client's end.
func (h *hosts) of(end netip.AddrPort) (found []row) {
	port := strconv.Itoa(int(end.Port()))
	for _, r := range h.byPort[port] {
		if h.is(strings.TrimSuffix(r["host"], ":"+port), end.Addr()) {
			found = append(found, r)
		}
	}
	return found
}

// is reports whether an address or a name stands for a client's address. A name does if the resolver of this machine finds the
// address for it, as the server's did before it took the name for the client's.
func (h *hosts) is(host string, client netip.Addr) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap() == client
	}
	ips, ok := h.names[host]
	if !ok {
		ips, _ = h.lookup(h.ctx, "ip", host) // what is not found is not known to be the client's
		h.names[host] = ips
	}
	return slices.ContainsFunc(ips, func(ip netip.Addr) bool { return ip.Unmap() == client })
}
