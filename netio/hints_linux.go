package netio

import (
	"context"
	"errors"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// hintBuffer is the size of the receive buffer of the hints' socket, in bytes.
const hintBuffer = 1 << 20

// hint says that something may have changed in the kernel: addresses, links, or anything if both are false.
type hint struct {
	addr *address // a message about this address
	gone bool     // it was removed
	link bool     // a message about a link
}

// hints is a subscription to the kernel's news of addresses and links.
type hints struct{ conn *netlink.Conn }

func subscribe(rcvbuf int) (*hints, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{
		Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR,
	})
	if err != nil {
		return nil, classify(err)
	}
	if err := conn.SetReadBuffer(rcvbuf); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &hints{conn}, nil
}

func (h *hints) close() error { return h.conn.Close() }

// follow hands on hints until ctx is done. When the socket overflows or fails, what was lost is not known: that is a
// hint to read everything.
func (h *hints) follow(ctx context.Context, to chan<- hint, w *Watcher) {
	for h != nil {
		err := h.receive(ctx, to, w)
		_ = h.close()
		if ctx.Err() != nil {
			return
		}
		w.cfg.Logger.Warn("the kernel's news can not be read; subscribing again", "err", err)
		h = resubscribe(ctx, w.rcvbuf)
		tell(ctx, to, hint{})
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
func (h *hints) receive(ctx context.Context, to chan<- hint, w *Watcher) error {
	stop := context.AfterFunc(ctx, func() { _ = h.close() })
	defer stop()
	for {
		msgs, err := h.conn.Receive()
		if errors.Is(err, unix.ENOBUFS) {
			w.cfg.Logger.Info("news from the kernel were lost for want of buffer; everything is read again")
			tell(ctx, to, hint{})
			continue
		}
		if err != nil {
			return err
		}
		for _, m := range msgs {
			if n, ok := readHint(m); ok {
				tell(ctx, to, n)
			}
		}
	}
}

func tell(ctx context.Context, to chan<- hint, h hint) {
	select {
	case to <- h:
	case <-ctx.Done():
	}
}

// readHint returns what a message of the kernel hints at. A message that it can not read hints at anything.
func readHint(m netlink.Message) (hint, bool) {
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
