package netio

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// replyTimeout bounds the wait for the kernel's answer. The kernel handles a request inside the call that sends it,
	// however long that takes, so the answer is there when the wait begins, unless it was lost for want of memory.
	replyTimeout = time.Second
	// dumpTries bounds how often a dump that was overtaken by a change is begun again.
	dumpTries = 8
	// dumpBuffer holds the largest datagram of a dump (NLMSG_GOODSIZE is at most 8 KiB, a dump's at most 32 KiB).
	dumpBuffer = 32 << 10
)

// session is a netlink socket whose lists and verdicts are read below the library; see receive. It is used by one goroutine
// at a time.
type session struct {
	conn   *netlink.Conn
	connBy answerBy
	raw    syscall.RawConn
	buf    []byte
	// broken is set when a request's answer is not known, so that a late one can not be taken for that of the next.
	broken bool
}

func newSession() (*session, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", classify(err))
	}
	s := &session{conn: conn, buf: make([]byte, dumpBuffer)}
	// Better error texts, where the kernel has them (4.12).
	_ = conn.SetOption(netlink.ExtendedAcknowledge, true)
	if s.raw, err = conn.SyscallConn(); err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", errors.Join(err, s.close()))
	}
	return s, nil
}

func (s *session) close() error { return s.conn.Close() }

// request sends one message and returns the kernel's answer.
func (s *session) request(typ netlink.HeaderType, flags netlink.HeaderFlags, body []byte) ([]netlink.Message, error) {
	req, err := s.send(typ, flags, body)
	if err == nil {
		err = s.awaitAnswer()
	}
	if err != nil {
		return nil, s.fail(err)
	}
	msgs, err := s.conn.Receive()
	if err == nil {
		err = netlink.Validate(req, msgs)
	}
	if err != nil {
		return nil, s.fail(err)
	}
	return msgs, nil
}

func (s *session) send(typ netlink.HeaderType, flags netlink.HeaderFlags, body []byte) (netlink.Message, error) {
	return s.conn.Send(netlink.Message{Header: netlink.Header{Type: typ, Flags: flags | netlink.Request}, Data: body})
}

// awaitAnswer bounds the wait that follows. It is called after the request was sent, because sending may take long. A
// bound that was set shortly before stays: each one that is set makes the Go runtime look at its timers.
func (s *session) awaitAnswer() error { return s.connBy.renew(s.conn) }

// answerBy is the bound of a wait on a socket.
type answerBy struct{ until time.Time }

// renew leaves a wait at least replyTimeout and at most twice that.
func (b *answerBy) renew(c interface{ SetReadDeadline(time.Time) error }) error {
	now := time.Now()
	if b.until.Sub(now) >= replyTimeout {
		return nil
	}
	b.until = now.Add(2 * replyTimeout)
	return c.SetReadDeadline(b.until)
}

// fail classifies err and notes whether the session can still be used: after a refusal by the kernel it can.
func (s *session) fail(err error) error {
	var op *netlink.OpError
	refused := errors.As(err, &op)
	if refused {
		_, refused = op.Err.(syscall.Errno)
	}
	s.broken = s.broken || !refused
	return classify(err)
}

// dump asks for all objects of a kind and hands each to visit. It succeeds only if the kernel says that the list is
// complete and that nothing has changed while it was made: what is missing from it is known to be absent. reset is
// called before each try.
func (s *session) dump(typ netlink.HeaderType, body []byte, reset func(), visit func(syscall.NetlinkMessage) error) error {
	for range dumpTries {
		reset()
		whole, err := s.dumpOnce(typ, body, visit)
		if err != nil {
			return err
		}
		if whole {
			return nil
		}
	}
	return fmt.Errorf("the kernel's list changed %d times while it was read", dumpTries)
}

func (s *session) dumpOnce(typ netlink.HeaderType, body []byte, visit func(syscall.NetlinkMessage) error) (whole bool, err error) {
	req, err := s.send(typ, netlink.Dump, body)
	if err != nil {
		return false, s.fail(err)
	}
	whole = true
	for done := false; !done; {
		msgs, err := s.receive()
		if err != nil {
			s.broken = true
			return false, err
		}
		for _, m := range msgs {
			if m.Header.Seq != req.Header.Sequence {
				continue
			}
			whole = whole && m.Header.Flags&unix.NLM_F_DUMP_INTR == 0
			if done, err = endOfDump(m); err == nil && !done {
				err = visit(m)
			}
			if err != nil {
				s.broken = true // the rest of the dump is still in the socket
				return false, err
			}
		}
	}
	return whole, nil
}

// receive reads one datagram. It does so below package netlink, which drops the header of a dump's last message and
// with it the kernel's word that the dump was interrupted.
func (s *session) receive() (msgs []syscall.NetlinkMessage, err error) {
	if err := s.awaitAnswer(); err != nil {
		return nil, err
	}
	var n int
	waitErr := s.raw.Read(func(fd uintptr) bool {
		n, _, err = unix.Recvfrom(int(fd), s.buf, unix.MSG_TRUNC)
		return !errors.Is(err, unix.EAGAIN)
	})
	if err = errors.Join(waitErr, err); err != nil {
		return nil, fmt.Errorf("read the kernel's answer: %w", classify(err))
	}
	if n > len(s.buf) {
		return nil, fmt.Errorf("the kernel's answer of %d bytes does not fit", n)
	}
	msgs, err = syscall.ParseNetlinkMessage(s.buf[:n])
	if err != nil {
		return nil, fmt.Errorf("parse the kernel's answer: %w", err)
	}
	return msgs, nil
}

// endOfDump reports whether m ends a dump, and the kernel's error if it ends it badly.
func endOfDump(m syscall.NetlinkMessage) (bool, error) {
	if m.Header.Type != unix.NLMSG_DONE && m.Header.Type != unix.NLMSG_ERROR {
		return false, nil
	}
	if len(m.Data) < 4 {
		return true, fmt.Errorf("%w: end of a dump of %d bytes", errShortMessage, len(m.Data))
	}
	if errno := -int32(nativeUint32(m.Data)); errno > 0 {
		return true, classify(syscall.Errno(errno))
	}
	return true, nil
}

// addresses lists the IPv4 and IPv6 addresses of all interfaces.
func (s *session) addresses() ([]address, error) {
	var all []address
	err := s.dump(unix.RTM_GETADDR, make([]byte, ifAddrMsgLen), func() { all = all[:0] }, func(m syscall.NetlinkMessage) error {
		if m.Header.Type != unix.RTM_NEWADDR || len(m.Data) == 0 || m.Data[0] != familyIPv4 && m.Data[0] != familyIPv6 {
			return nil
		}
		a, err := parseAddress(m.Data)
		if err == nil {
			all = append(all, a)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the addresses: %w", err)
	}
	return all, nil
}

// copies lists where the given addresses are bound, on any interface and with any prefix length.
func (s *session) copies(of []netip.Prefix) ([]address, error) {
	all, err := s.addresses()
	if err != nil {
		return nil, err
	}
	wanted := setOf(of)
	return slices.DeleteFunc(all, func(a address) bool { return !wanted[a.Local] }), nil
}

func setOf(ps []netip.Prefix) map[netip.Addr]bool {
	set := make(map[netip.Addr]bool, len(ps))
	for _, p := range ps {
		set[p.Addr()] = true
	}
	return set
}

func contains(ps []netip.Prefix, ip netip.Addr) bool {
	for _, p := range ps {
		if p.Addr() == ip {
			return true
		}
	}
	return false
}

// links lists all interfaces.
func (s *session) links() ([]link, error) {
	body, err := encodeLinkRequest("")
	if err != nil {
		return nil, err
	}
	var all []link
	err = s.dump(unix.RTM_GETLINK, body, func() { all = all[:0] }, func(m syscall.NetlinkMessage) error {
		if m.Header.Type != unix.RTM_NEWLINK {
			return nil
		}
		l, err := parseLink(m.Data)
		if err == nil {
			all = append(all, l)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the interfaces: %w", err)
	}
	return all, nil
}

// link returns the interface of the given name, or ErrNoInterface.
func (s *session) link(name string) (link, error) {
	if name == "" || len(name) >= unix.IFNAMSIZ {
		return link{}, fmt.Errorf("interface %q: %w", name, ErrNoInterface)
	}
	body, err := encodeLinkRequest(name)
	if err != nil {
		return link{}, err
	}
	msgs, err := s.request(unix.RTM_GETLINK, 0, body)
	if err != nil {
		return link{}, fmt.Errorf("interface %q: %w", name, err)
	}
	if len(msgs) != 1 {
		return link{}, fmt.Errorf("interface %q: %d answers from the kernel", name, len(msgs))
	}
	l, err := parseLink(msgs[0].Data)
	if err != nil {
		return link{}, fmt.Errorf("interface %q: %w", name, err)
	}
	return l, nil
}

// changesAtOnce is how many changes go to the kernel in one system call: few enough for the answers, if all are refused, to
// fit into a socket's buffer, and for whoever looks at the clock in between.
const changesAtOnce = 64

// changeAll makes changes in one system call, at most changesAtOnce, and returns the kernel's verdict on each. The kernel
// goes on after one that it refuses. Only the last asks for an answer: refusals come in any case, and before it.
func (s *session) changeAll(typ netlink.HeaderType, flags netlink.HeaderFlags, as []address) (verdicts []error, err error) {
	reqs := make([]netlink.Message, 0, len(as))
	for _, a := range as {
		body, err := a.encode()
		if err != nil {
			return nil, err
		}
		reqs = append(reqs, netlink.Message{Header: netlink.Header{Type: typ, Flags: flags | netlink.Request}, Data: body})
	}
	reqs[len(reqs)-1].Header.Flags |= netlink.Acknowledge
	if reqs, err = s.conn.SendMessages(reqs); err != nil {
		return nil, s.fail(err)
	}
	verdicts = make([]error, len(as))
	for first, last := reqs[0].Header.Sequence, reqs[len(reqs)-1].Header.Sequence; ; {
		msgs, err := s.receive()
		if err != nil {
			s.broken = true
			return nil, err
		}
		for _, m := range msgs {
			i := int(m.Header.Seq - first)
			if m.Header.Type != unix.NLMSG_ERROR || i < 0 || i >= len(as) {
				continue
			}
			if _, verdicts[i] = endOfDump(m); m.Header.Seq == last {
				return verdicts, nil
			}
		}
	}
}

// addAll adds at most changesAtOnce addresses and returns the kernel's verdict on each.
func (s *session) addAll(as []address) ([]error, error) {
	return s.changeAll(unix.RTM_NEWADDR, netlink.Create|netlink.Excl, as)
}

// replaceAll renews at most changesAtOnce addresses, or adds them if they are absent, and returns the kernel's verdict on each.
func (s *session) replaceAll(as []address) ([]error, error) {
	return s.changeAll(unix.RTM_NEWADDR, netlink.Replace, as)
}

// removeAll removes at most changesAtOnce addresses and returns the kernel's verdict on each. That an address or its interface
// is gone already is no error.
func (s *session) removeAll(as []address) ([]error, error) {
	plain := make([]address, len(as))
	for i, a := range as {
		a.Flags, a.Proto, a.Metric, a.Expiry = 0, 0, 0, lifetime{} // not part of an address's identity
		plain[i] = a
	}
	verdicts, err := s.changeAll(unix.RTM_DELADDR, 0, plain)
	for i, v := range verdicts {
		if errors.Is(v, unix.EADDRNOTAVAIL) || errors.Is(v, unix.ENODEV) {
			verdicts[i] = nil
		}
	}
	return verdicts, err
}

// pool keeps netlink sockets that nobody uses. Its lock is not held while one is in use.
type pool struct {
	mu     sync.Mutex
	idle   []*session
	closed bool
}

const poolMax = 8

var errClosed = errors.New("the binder is closed")

// use runs f with a session of its own.
func (p *pool) use(f func(*session) error) error {
	s, err := p.get()
	if err != nil {
		return err
	}
	defer p.put(s)
	return f(s)
}

func (p *pool) get() (*session, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, errClosed
	}
	if n := len(p.idle); n > 0 {
		s := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		return s, nil
	}
	p.mu.Unlock()
	return newSession()
}

func (p *pool) put(s *session) {
	p.mu.Lock()
	keep := !p.closed && !s.broken && len(p.idle) < poolMax
	if keep {
		p.idle = append(p.idle, s)
	}
	p.mu.Unlock()
	if !keep {
		_ = s.close() // nothing was written that could be lost
	}
}

// close closes the idle sockets; those in use are closed when they come back.
func (p *pool) close() error {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, true
	p.mu.Unlock()
	var errs []error
	for _, s := range idle {
		errs = append(errs, s.close())
	}
	return errors.Join(errs...)
}
