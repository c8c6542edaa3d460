package consensus

import (
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// vListener is a TCP port.
type vListener struct {
	n     *nic
	at    netip.AddrPort
	queue chan net.Conn
	ended chan struct{}
}

// close ends the port. The caller holds the fabric's lock.
func (l *vListener) close() {
	if l.n.f.ports[l.at] == l {
		delete(l.n.f.ports, l.at)
		close(l.ended)
	}
}

func (l *vListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.ended:
		return nil, net.ErrClosed
	}
}

func (l *vListener) Close() error {
	l.n.f.locked(l.close)
	return nil
}

func (l *vListener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.at) }

// pipe is one direction of a connection.
type pipe struct {
	f                *fabric
	l                link
	sender, receiver *vConn
	way              []segment // sent and not arrived, in order
	moving           bool      // a call of arrive is due
	refused          bool      // a reset was sent
	buf              []byte    // arrived and not read
	end              error     // arrived: nothing comes any more
	wake             chan struct{}
}

type segment struct {
	at   time.Time
	data []byte
	end  error
}

// send puts something on its way. The caller holds the lock.
func (p *pipe) send(s segment) {
	s.at = time.Now().Add(p.f.takes(p.l))
	if n := len(p.way); n > 0 && s.at.Before(p.way[n-1].at) {
		s.at = p.way[n-1].at // TCP keeps the order
	}
	p.way = append(p.way, s)
	p.move(time.Until(s.at))
}

func (p *pipe) move(in time.Duration) {
	if !p.moving {
		p.moving = true
		time.AfterFunc(in, func() { p.f.locked(p.arrive) })
	}
}

// arrive delivers what is due. The caller holds the lock.
func (p *pipe) arrive() {
	p.moving = false
	for len(p.way) > 0 {
		s := p.way[0]
		if wait := time.Until(s.at); wait > 0 {
			p.move(wait)
			return
		}
		switch down := p.f.down(p.l); {
		case down > vGone && s.end != nil: // the receiver's keep-alive found nobody
		case down > vSilence && s.end == nil:
			p.reset()
			return
		case down > 0:
			p.move(vResend)
			return
		}
		p.way = p.way[1:]
		switch {
		case s.end != nil:
			p.end = s.end
		case p.receiver.dead != nil:
			p.receiver.out.refuse()
		default:
			p.buf = append(p.buf, s.data...)
			if p.f.down(link{p.l.to, p.l.from}) > 0 { // the acknowledgement is lost
				time.AfterFunc(vSilence, func() { p.f.locked(p.unacknowledged) })
			}
		}
		poke(p.wake)
	}
}

// unacknowledged ends the sender's side if no answer can have come for too long. The caller holds the lock.
func (p *pipe) unacknowledged() {
	if p.f.down(link{p.l.to, p.l.from}) >= vSilence {
		p.reset()
	}
}

// reset gives up what is on its way, and the sender's end. The caller holds the lock.
func (p *pipe) reset() {
	if p.sender.dead == nil {
		p.sender.dead = syscall.ETIMEDOUT
		poke(p.sender.in.wake)
	}
	p.refuse()
}

// refuse tells the other end that this one is gone, unless it was told. The caller holds the lock.
func (p *pipe) refuse() {
	if !p.refused {
		p.refused, p.way = true, nil
		p.send(segment{end: syscall.ECONNRESET})
	}
}

// vConn is one end of a TCP connection. One goroutine at a time reads.
type vConn struct {
	f             *fabric
	in, out       *pipe
	local, remote *net.TCPAddr
	dead          error // this end is of no use any more
	readBy        time.Time
	writeBy       time.Time
}

// end closes this end, and tells the other one. The caller holds the lock.
func (c *vConn) end(told bool) {
	if c.dead != nil {
		return
	}
	c.dead = net.ErrClosed
	if told {
		c.out.send(segment{end: io.EOF})
	}
	poke(c.in.wake)
}

func (c *vConn) Read(b []byte) (int, error) {
	for {
		var n int
		var err error
		var by time.Time
		c.f.locked(func() {
			by = c.readBy
			switch {
			case c.dead != nil:
				err = c.dead
			case len(c.in.buf) > 0:
				n = copy(b, c.in.buf)
				c.in.buf = c.in.buf[n:]
			case c.in.end != nil:
				err = c.in.end
			case !by.IsZero() && !time.Now().Before(by):
				err = os.ErrDeadlineExceeded
			}
		})
		if n > 0 || err != nil || len(b) == 0 {
			return n, err
		}
		c.wait(by)
	}
}

// wait returns when something has changed for a reader, or at by.
func (c *vConn) wait(by time.Time) {
	if by.IsZero() {
		<-c.in.wake
		return
	}
	t := time.NewTimer(time.Until(by))
	defer t.Stop()
	select {
	case <-c.in.wake:
	case <-t.C:
	}
}

func (c *vConn) Write(b []byte) (n int, err error) {
	c.f.locked(func() {
		switch {
		case c.dead != nil:
			err = c.dead
		case c.in.end == syscall.ECONNRESET:
			err = syscall.EPIPE
		case !c.writeBy.IsZero() && !time.Now().Before(c.writeBy):
			err = os.ErrDeadlineExceeded
		default:
			n = len(b)
			c.out.send(segment{data: append([]byte(nil), b...)})
		}
	})
	return n, err
}

func (c *vConn) Close() error {
	c.f.locked(func() { c.end(true) })
	return nil
}

func (c *vConn) LocalAddr() net.Addr  { return c.local }
func (c *vConn) RemoteAddr() net.Addr { return c.remote }

func (c *vConn) SetDeadline(t time.Time) error {
	c.f.locked(func() { c.readBy, c.writeBy = t, t })
	poke(c.in.wake)
	return nil
}

func (c *vConn) SetReadDeadline(t time.Time) error {
	c.f.locked(func() { c.readBy = t })
	poke(c.in.wake)
	return nil
}

func (c *vConn) SetWriteDeadline(t time.Time) error {
	c.f.locked(func() { c.writeBy = t })
	return nil
}
