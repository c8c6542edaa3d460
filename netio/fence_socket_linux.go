package netio

import (
	"errors"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// fenceBuffer holds a transaction with tens of thousands of addresses, and the answers to it.
	fenceBuffer = 8 << 20
	// answerWait bounds the wait for the kernel's answers. They are there when the sending returns; fewer than expected
	// come only if the kernel refused the transaction as a whole.
	answerWait = 250 * time.Millisecond
	// answerSize holds the answer to a transaction, which is one acknowledgement, or some failures.
	answerSize = 16 << 10
	// commitTries bounds how often a transaction is tried that the kernel refused for the moment.
	commitTries = 5
)

// fenceSocket carries out transactions. Its user sees to it that there is one at a time.
type fenceSocket struct {
	tables *fenceTables
	ports  *fencePorts
	conn   *nftables.Conn
	raw    *netlink.Conn
	elems  elementBatch
	answer []byte
	pace   pace

	// What tryElements works with is kept from call to call, since there is one with each report.
	batch    fenceBatch
	sent     []byte
	kernel   unix.SockaddrNetlink
	carryOut func(fd uintptr) // sends what is in sent
	verdict  error            // of the kernel on it
}

// commit carries out a transaction: all of it or nothing. After an error that is not of the kernel's making it may have
// been carried out all the same.
func (s *fenceSocket) commit(build func(*fenceBatch)) (err error) {
	for range commitTries {
		if err = s.try(build); !passing(err) {
			break
		}
	}
	return err
}

// commitElements is commit for a transaction that has set elements only, of which there is one with each report.
func (s *fenceSocket) commitElements(build func(*fenceBatch)) (err error) {
	for range commitTries {
		if err = s.tryElements(build); !passing(err) {
			break
		}
	}
	return err
}

func (s *fenceSocket) tryElements(build func(*fenceBatch)) error {
	if err := s.open(); err != nil {
		return err
	}
	s.elems.begin(s.raw.PID())
	s.batch.again(s.tables, &s.elems)
	build(&s.batch)
	s.sent = s.elems.end()
	if s.batch.err != nil || s.sent == nil {
		return s.batch.err
	}
	rc, err := s.raw.SyscallConn()
	if err != nil {
		return errors.Join(err, s.close())
	}
	s.verdict = nil
	err = rc.Control(s.carryOut)
	return classify(errors.Join(err, s.verdict))
}

// errNoAnswer leaves it open whether a transaction was carried out.
var errNoAnswer = errors.New("nf_tables has not answered")

// exchange sends a transaction and reads the verdict, which is there when the sending returns.
func (s *fenceSocket) exchange(fd int, batch []byte) error {
	if err := s.send(fd, batch); err != nil {
		return fmt.Errorf("send a transaction to nf_tables: %w", err)
	}
	if s.answer == nil {
		s.answer = make([]byte, answerSize)
	}
	done := false
	var failure error
	for {
		// A raw call, because it never waits, and an ordinary one would wake the Go scheduler's monitor.
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(s.answer))),
			uintptr(len(s.answer)), unix.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == unix.EINTR:
			continue
		case errno == unix.EAGAIN && failure != nil:
			return failure
		case errno == unix.EAGAIN && done:
			return nil
		case errno == unix.EAGAIN:
			return errNoAnswer
		case errno != 0:
			return fmt.Errorf("read the answer of nf_tables: %w", errno)
		}
		reached, err := s.elems.answered(s.answer[:n])
		done = done || reached
		if failure == nil {
			failure = err
		}
	}
}

// toKernel is the address of the kernel, as it reads it.
var toKernel = unix.RawSockaddrNetlink{Family: unix.AF_NETLINK}

// send returns when the transaction was carried out or refused.
func (s *fenceSocket) send(fd int, batch []byte) (err error) {
	if s.pace.begin(time.Now()) {
		_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(batch))),
			uintptr(len(batch)), 0, uintptr(unsafe.Pointer(&toKernel)), unix.SizeofSockaddrNetlink)
		if errno != 0 {
			err = errno
		}
	} else {
		err = unix.Sendto(fd, batch, 0, &s.kernel)
	}
	s.pace.end(time.Now())
	return err
}

// passing reports whether the same transaction may succeed when it is tried again at once.
func passing(err error) bool {
	return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) || errors.Is(err, unix.ERESTART)
}

func (s *fenceSocket) try(build func(*fenceBatch)) error {
	if err := s.open(); err != nil {
		return err
	}
	b := &fenceBatch{t: s.tables, c: s.conn}
	build(b)
	if b.err != nil {
		return errors.Join(b.err, s.close()) // the library keeps what was built
	}
	err := s.raw.SetReadDeadline(time.Now().Add(answerWait))
	if err == nil {
		err = s.conn.Flush()
	}
	if err != nil {
		return classify(errors.Join(err, s.drain()))
	}
	return nil
}

// drain throws unread answers away after an error. The kernel has answered by the time the sending returns, so nothing
// comes later. A new socket would do as well, but the closing of the old one makes the kernel wait, with a lock that all
// transactions need, until what earlier ones deleted is freed: tens of milliseconds.
func (s *fenceSocket) drain() error {
	rc, err := s.raw.SyscallConn()
	if err == nil {
		err = rc.Control(func(fd uintptr) {
			for buf := make([]byte, 1); ; {
				if _, _, err := unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT); err != nil && !errors.Is(err, unix.EINTR) {
					return
				}
			}
		})
	}
	if err != nil {
		return errors.Join(err, s.close())
	}
	return nil
}

// open makes sure that there is a socket.
func (s *fenceSocket) open() error {
	if s.conn != nil {
		return nil
	}
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		s.raw = c
		s.ports.add(c.PID())
		return errors.Join(c.SetWriteBuffer(fenceBuffer), c.SetReadBuffer(fenceBuffer),
			c.SetOption(netlink.CapAcknowledge, true))
	}))
	if err != nil {
		return fmt.Errorf("open a netlink socket to nf_tables: %w", classify(err))
	}
	s.conn = conn
	s.kernel.Family = unix.AF_NETLINK
	s.carryOut = func(fd uintptr) { s.verdict = s.exchange(int(fd), s.sent) }
	return nil
}

func (s *fenceSocket) close() error {
	if s.conn == nil {
		return nil
	}
	s.ports.remove(s.raw.PID())
	err := s.conn.CloseLasting()
	s.conn, s.raw = nil, nil
	return err
}

// fencePorts knows the netlink ports of our own sockets, by which notifications of our own doing are told from others'.
type fencePorts struct {
	mu    sync.Mutex
	ports map[uint32]bool
}

func (p *fencePorts) add(port uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ports == nil {
		p.ports = make(map[uint32]bool)
	}
	p.ports[port] = true
}

func (p *fencePorts) remove(port uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.ports, port)
}

func (p *fencePorts) has(port uint32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ports[port]
}

func (p *fencePorts) list() (ports []uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for port := range p.ports {
		ports = append(ports, port)
	}
	return ports
}
