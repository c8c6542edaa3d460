package netio

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// hintBuffer is the size of the receive buffer of the hints' socket, in bytes.
	hintBuffer = 1 << 20
	// hintsAtOnce is how many messages are read by one system call.
	hintsAtOnce = 32
	// hintSize holds a message about an address, which has a hundred bytes, or a link, which has two thousand at most. The kernel
	// sends each in a datagram of its own.
	hintSize = 4 << 10
)

// hint says that something may have changed in the kernel: addresses, links, or anything if both are false.
type hint struct {
	addr *address // a message about this address
	gone bool     // it was removed
	link bool     // a message about a link
}

// hints is a subscription to the kernel's news of addresses and links. Package netlink reads each message by two system calls
// and into memory of its own, which is a good part of what a daemon does while a thousand addresses come or go; so it is read
// here.
type hints struct {
	conn    *netlink.Conn
	raw     syscall.RawConn
	bufs    [][]byte
	headers []unix.Mmsghdr
}

func subscribe(rcvbuf int) (*hints, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{
		Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR,
	})
	if err != nil {
		return nil, classify(err)
	}
	raw, err := conn.SyscallConn()
	if err = errors.Join(err, conn.SetReadBuffer(rcvbuf)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	h := &hints{conn: conn, raw: raw, headers: make([]unix.Mmsghdr, hintsAtOnce)}
	for i := range h.headers {
		buf := make([]byte, hintSize)
		iov := &unix.Iovec{Base: &buf[0]}
		iov.SetLen(len(buf))
		h.bufs = append(h.bufs, buf)
		h.headers[i].Hdr.Iov = iov
		h.headers[i].Hdr.SetIovlen(1)
	}
	return h, nil
}

func (h *hints) close() error { return h.conn.Close() }

// follow hands on hints until ctx is done. When the socket overflows or fails, what was lost is not known: that is a
// hint to read everything.
func (h *hints) follow(ctx context.Context, to chan<- []hint, w *Watcher) {
	for h != nil {
		err := h.receive(ctx, to, w)
		_ = h.close()
		if ctx.Err() != nil {
			return
		}
		w.cfg.Logger.Warn("the kernel's news can not be read; subscribing again", "err", err)
		h = resubscribe(ctx, w.rcvbuf)
		tell(ctx, to, []hint{{}})
	}
}

// resubscribe tries until it succeeds or ctx is done; then it returns nil.
func resubscribe(ctx context.Context, rcvbuf int) *hints {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retryEvery):
		}
		if h, err := subscribe(rcvbuf); err == nil {
			return h
		}
	}
}

// receive hands on hints until the socket fails or ctx is done.
func (h *hints) receive(ctx context.Context, to chan<- []hint, w *Watcher) error {
	stop := context.AfterFunc(ctx, func() { _ = h.close() })
	defer stop()
	for {
		n, err := h.read()
		if errors.Is(err, unix.ENOBUFS) {
			w.cfg.Logger.Info("news from the kernel were lost for want of buffer; everything is read again")
			tell(ctx, to, []hint{{}})
			continue
		}
		if err != nil {
			return err
		}
		var news []hint
		for i, hdr := range h.headers[:n] {
			news = appendHints(news, h.bufs[i][:min(hdr.Len, hintSize)], hdr.Hdr.Flags&unix.MSG_TRUNC != 0)
		}
		if len(news) > 0 {
			tell(ctx, to, news)
		}
	}
}

// read waits for datagrams and returns how many there are in h.bufs.
func (h *hints) read() (n int, err error) {
	waitErr := h.raw.Read(func(fd uintptr) bool {
		n, err = recvmmsg(fd, h.headers)
		return !errors.Is(err, unix.EAGAIN)
	})
	return n, errors.Join(waitErr, err)
}

func tell(ctx context.Context, to chan<- []hint, news []hint) {
	select {
	case to <- news:
	case <-ctx.Done():
	}
}

// appendHints appends what a datagram of the kernel hints at. One that can not be read, or not whole, hints at anything.
func appendHints(news []hint, datagram []byte, cut bool) []hint {
	msgs, err := syscall.ParseNetlinkMessage(datagram)
	if err != nil || cut {
		return append(news, hint{})
	}
	for _, m := range msgs {
		if h, ok := readHint(m); ok {
			news = append(news, h)
		}
	}
	return news
}

// readHint returns what a message of the kernel hints at. A message that it can not read hints at anything.
func readHint(m syscall.NetlinkMessage) (hint, bool) {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return hint{link: true}, true
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		a, err := parseAddress(m.Data)
		if err != nil {
			return hint{}, true
		}
		return hint{addr: &a, gone: m.Header.Type == unix.RTM_DELADDR}, true
	}
	return hint{}, false
}
