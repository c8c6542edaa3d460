package netio

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// fenceRetry is how soon a restoration that failed is tried again.
const fenceRetry = 10 * time.Millisecond

// fenceHints is how much news the kernel keeps for the watch. Lost news leads to a look at the tables, too.
const fenceHints = 1 << 20

// Watch listens to the news of nf_tables until ctx is done and then returns nil; it returns an error only if it can not
// begin or its socket breaks. When another program has removed or changed the fence's tables ("nft flush ruleset" does)
// Watch restores them within milliseconds, all closed, and then calls lost with an [ErrFenceLost] that says whether the
// restoration worked; if not, it tries again. Losses that other methods find are told here as well. Run one Watch.
func (f *Fence) Watch(ctx context.Context, lost func(error)) error {
	conn, err := f.subscribe()
	if err != nil {
		return fmt.Errorf("netio: fence: watch nf_tables: %w", classify(err))
	}
	hints, ended := make(chan struct{}, 1), make(chan error, 1)
	hints <- struct{}{} // for what happened before we listened
	go func() { ended <- f.listen(conn, hints) }()
	var retry <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			err := conn.Close()
			<-ended
			return err
		case err := <-ended:
			return fmt.Errorf("netio: fence: watch nf_tables: %w", classify(errors.Join(err, conn.Close())))
		case err := <-f.losses:
			lost(err)
			continue
		case <-hints:
		case <-retry:
		}
		retry = nil
		if f.inspect() != nil {
			retry = time.After(fenceRetry)
		}
	}
}

func (f *Fence) inspect() error {
	f.yieldMu.Lock()
	defer f.yieldMu.Unlock()
	return f.repair()
}

// subscribe opens a socket to the news of nf_tables.
func (f *Fence) subscribe() (*netlink.Conn, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	filter, err := foreignNews(f.ports.list())
	if err == nil {
		err = errors.Join(conn.SetBPF(filter), conn.SetReadBuffer(fenceHints), conn.JoinGroup(unix.NFNLGRP_NFTABLES))
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// foreignNews keeps the news of our own doing, of which there is some with each report, from waking us up. Notifications
// carry the port of the socket that the transaction came from, and those of one transaction are not mixed with others'.
func foreignNews(own []uint32) ([]bpf.RawInstruction, error) {
	const portOffset = 12 // nlmsg_pid in struct nlmsghdr
	prog := []bpf.Instruction{bpf.LoadAbsolute{Off: portOffset, Size: 4}}
	for _, port := range own {
		prog = append(prog,
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, port)), SkipTrue: 1},
			bpf.RetConstant{Val: takeNone})
	}
	return bpf.Assemble(append(prog, bpf.RetConstant{Val: ^uint32(0)}))
}

// listen turns news about our tables into hints, until the socket is closed or broken.
func (f *Fence) listen(conn *netlink.Conn, hints chan<- struct{}) error {
	for {
		msgs, err := conn.Receive()
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return err
		}
		if err == nil && !f.concerned(msgs) {
			continue
		}
		select {
		case hints <- struct{}{}:
		default: // one look is enough for both
		}
	}
}

// concerned reports whether others' doing may have touched our tables.
func (f *Fence) concerned(msgs []netlink.Message) bool {
	for _, m := range msgs {
		if f.ports.has(m.Header.PID) {
			continue
		}
		if n, ok, err := parseFenceNotice(m); err != nil || ok && n.concerns(f.cfg.Table) {
			return true
		}
	}
	return false
}
