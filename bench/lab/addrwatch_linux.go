package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrEventsLost means that an observer's queue overflowed: what it has cannot be judged.
var ErrEventsLost = errors.New("the kernel dropped events that the observer had not read")

// addrWatch hears the address and link events of all namespaces through one rtnetlink socket.
type addrWatch struct {
	sock  int
	stop  stopper
	hosts map[int]string // by namespace id
	watch []netip.Addr
	note  func(Event)

	mu     sync.Mutex
	events []AddrEvent
	links  map[string]rtEvent
	err    error
}

// watchAddrs starts the observer. The namespace ids of the hosts must be set in sw already, because the kernel delivers
// the events of those namespaces only that have one (NETLINK_LISTEN_ALL_NSID, netlink(7)).
func watchAddrs(sw *Namespace, hosts []*Host, vips []netip.Prefix, note func(Event)) (*addrWatch, error) {
	w := &addrWatch{sock: -1, hosts: map[int]string{}, links: map[string]rtEvent{}, note: note}
	for _, h := range hosts {
		w.hosts[h.nsID()] = h.Name
		w.links[h.Name] = rtEvent{up: true, carrier: true} // as the network was built
	}
	for _, v := range vips {
		w.watch = append(w.watch, v.Addr())
	}
	if err := sw.Do(w.open); err != nil {
		return nil, fmt.Errorf("watch addresses: %w", err)
	}
	if err := w.stop.open(); err != nil {
		unix.Close(w.sock)
		return nil, err
	}
	go w.loop()
	return w, nil
}

func (w *addrWatch) open() (err error) {
	w.sock, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open an rtnetlink socket: %w", err)
	}
	const queue = 8 << 20
	err = errors.Join(
		unix.SetsockoptInt(w.sock, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, queue),
		unix.SetsockoptInt(w.sock, unix.SOL_NETLINK, unix.NETLINK_LISTEN_ALL_NSID, 1),
		unix.Bind(w.sock, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	for _, group := range []int{unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_LINK} {
		err = errors.Join(err, unix.SetsockoptInt(w.sock, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group))
	}
	if err != nil {
		unix.Close(w.sock)
		return fmt.Errorf("subscribe to address events of all namespaces: %w", err)
	}
	return nil
}

func (w *addrWatch) loop() {
	defer w.stop.finished()
	runtime.LockOSThread() // never unlocked: the thread's priority ends with it
	raisePriority()
	buf, oob := make([]byte, 64<<10), make([]byte, 256)
	for w.stop.wait(w.sock) {
		for w.receive(buf, oob) {
		}
	}
	unix.Close(w.sock)
}

// receive reads one datagram and reports whether there may be more.
func (w *addrWatch) receive(buf, oob []byte) bool {
	n, oobn, _, _, err := unix.Recvmsg(w.sock, buf, oob, 0)
	now := time.Now()
	switch {
	case errors.Is(err, unix.EINTR):
		return true
	case errors.Is(err, unix.EAGAIN):
		return false
	case errors.Is(err, unix.ENOBUFS):
		w.fail(ErrEventsLost)
		return true
	case err != nil:
		w.fail(fmt.Errorf("read address events: %w", err))
		return false
	}
	host, ok := w.hosts[namespaceID(oob[:oobn])]
	if !ok {
		return true // the switch's own
	}
	events, err := parseNotifications(buf[:n])
	if err != nil {
		w.fail(err)
	}
	for _, e := range events {
		w.take(now, host, e)
	}
	return true
}

// namespaceID returns the id of the namespace that a datagram came from, -1 if it is the socket's own.
func namespaceID(oob []byte) int {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return -1
	}
	for _, m := range msgs {
		if m.Header.Level == unix.SOL_NETLINK && m.Header.Type == unix.NETLINK_LISTEN_ALL_NSID && len(m.Data) >= 4 {
			return int(int32(binary.NativeEndian.Uint32(m.Data)))
		}
	}
	return -1
}

func (w *addrWatch) take(now time.Time, host string, e rtEvent) {
	if e.link != "" {
		w.takeLink(now, host, e)
		return
	}
	if !slices.Contains(w.watch, e.addr) {
		return
	}
	w.mu.Lock()
	fresh := e.added != holds(w.events, host, e.addr)
	w.events = append(w.events, AddrEvent{Time: now, Node: host, Addr: e.addr, Added: e.added, Valid: e.valid})
	w.mu.Unlock()
	if fresh {
		w.note(Event{Time: now, Source: SourceAddress, Node: host, What: addrVerb(e.added), Detail: e.addr.String()})
	}
}

func (w *addrWatch) takeLink(now time.Time, host string, e rtEvent) {
	if e.link != Interface {
		return
	}
	w.mu.Lock()
	old := w.links[host]
	w.links[host] = e
	w.mu.Unlock()
	if old.up != e.up || old.carrier != e.carrier {
		w.note(Event{Time: now, Source: SourceAddress, Node: host, What: linkWords(e)})
	}
}

func addrVerb(added bool) string {
	if added {
		return WhatAddrAdded
	}
	return WhatAddrRemoved
}

func linkWords(e rtEvent) string {
	switch {
	case !e.up:
		return "link down"
	case !e.carrier:
		return "carrier lost"
	default:
		return "link up"
	}
}

// holds reports whether host has addr after all events.
func holds(events []AddrEvent, host string, addr netip.Addr) bool {
	for _, e := range slices.Backward(events) {
		if e.Node == host && e.Addr == addr {
			return e.Added
		}
	}
	return false
}

func (w *addrWatch) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
}

// snapshot returns the events so far and the first thing that went wrong.
func (w *addrWatch) snapshot() ([]AddrEvent, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.events), w.err
}

func (w *addrWatch) close() { w.stop.stop() }
