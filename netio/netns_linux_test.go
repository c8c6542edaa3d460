package netio

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jsimonetti/rtnetlink/v2"
	"github.com/jsimonetti/rtnetlink/v2/driver"
	"github.com/mdlayher/netlink"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

const inNamespace = "REMORA_NETIO_TEST_NAMESPACE"

// TestMain runs the tests again in a child process with a network namespace of its own. A goroutine may run on any
// thread, so the whole process must be inside. Without the capability to make a namespace the tests fail.
func TestMain(m *testing.M) {
	if os.Getenv(inNamespace) != "" {
		os.Exit(m.Run())
	}
	runtime.LockOSThread() // Pdeathsig is tied to the thread
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "netio's tests need root, to make a network namespace:", err)
		os.Exit(1)
	}
}

// onThread runs f on a thread of its own, which ends with it, so that f may change the thread's namespace or rights.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- f()
	}()
	return <-done
}

// wire is a veth pair: one end in the test's namespace, the other, "p0", in that of a peer.
type wire struct {
	tb   testing.TB
	name string
	peer int // the peer's namespace
}

var wires atomic.Int32

// newWire lays a wire and switches both ends on.
func newWire(tb testing.TB) *wire {
	tb.Helper()
	w := &wire{tb: tb, name: fmt.Sprintf("v%d", wires.Add(1)), peer: -1}
	tb.Cleanup(func() { // runs also if what follows fails
		if w.peer >= 0 {
			w.delete()
			must(tb, unix.Close(w.peer))
		}
	})
	must(tb, onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		w.peer = fd
		return err
	}))
	w.create()
	return w
}

func (w *wire) create() {
	w.tb.Helper()
	must(w.tb, rtnl(func(c *rtnetlink.Conn) error {
		return c.Link.New(&rtnetlink.LinkMessage{Attributes: &rtnetlink.LinkAttributes{
			Name: w.name,
			Info: &rtnetlink.LinkInfo{Kind: "veth", Data: &driver.Veth{PeerInfo: &rtnetlink.LinkMessage{
				Attributes: &rtnetlink.LinkAttributes{Name: "p0", NetNS: rtnetlink.NetNSForFD(uint32(w.peer))},
			}}},
		}})
	}))
	w.set(true)
	w.setPeer(true)
	poll(w.tb, "both ends of the wire up", func() bool { return w.link().up() })
}

func (w *wire) delete() {
	w.tb.Helper()
	if l, err := findLink(w.name); err == nil {
		must(w.tb, rtnl(func(c *rtnetlink.Conn) error { return c.Link.Delete(l.Index) }))
	} else if !errors.Is(err, ErrNoInterface) {
		w.tb.Error(err)
	}
}

// set switches the test's end on or off, setPeer the other.
func (w *wire) set(up bool) { must(w.tb, setUp(w.name, up)) }

func (w *wire) setPeer(up bool) { must(w.tb, w.inPeer(func() error { return setUp("p0", up) })) }

// inPeer runs f in the peer's namespace.
func (w *wire) inPeer(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(w.peer, unix.CLONE_NEWNET); err != nil {
			return err
		}
		return f()
	})
}

func (w *wire) link() link {
	w.tb.Helper()
	l, err := findLink(w.name)
	must(w.tb, err)
	return l
}

func (w *wire) peerLink() (l link) {
	w.tb.Helper()
	must(w.tb, w.inPeer(func() (err error) {
		l, err = findLink("p0")
		return err
	}))
	return l
}

// giveToPeer adds an address to the peer's end, as an administrator would.
func (w *wire) giveToPeer(p string) {
	w.tb.Helper()
	must(w.tb, w.inPeer(func() error { return addByHand("p0", netip.MustParsePrefix(p)) }))
}

// say sends a frame from the peer's end.
func (w *wire) say(frame []byte) {
	w.tb.Helper()
	must(w.tb, w.inPeer(func() error {
		l, err := findLink("p0")
		if err != nil {
			return err
		}
		var s senders
		return errors.Join(s.send(l, batchOf(frame), func() error { return nil }), s.close())
	}))
}

// batchOf returns frames that are sent together.
func batchOf(frames ...[]byte) *batch {
	b := &batch{}
	for _, f := range frames {
		b.buf = append(b.buf, f...)
		b.end()
	}
	return b
}

// tap records the frames of one protocol that arrive at the peer's end until the test ends.
func (w *wire) tap(protocol int) <-chan []byte {
	w.tb.Helper()
	var conn *packet.Conn
	must(w.tb, w.inPeer(func() error {
		l, err := findLink("p0")
		if err != nil {
			return err
		}
		conn, err = packet.Listen(l.netInterface(), packet.Raw, protocol, nil)
		return err
	}))
	return record(w.tb, conn)
}

// record hands on the frames that a socket receives, until the test ends.
func record(tb testing.TB, conn *packet.Conn) <-chan []byte {
	tb.Helper()
	frames := make(chan []byte, 1024)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			buf := make([]byte, listenBuffer)
			n, _, err := conn.ReadFrom(buf)
			if errors.Is(err, unix.ENETDOWN) {
				continue
			}
			if err != nil {
				return
			}
			select {
			case frames <- buf[:n]:
			default:
			}
		}
	}()
	tb.Cleanup(func() {
		must(tb, conn.Close())
		<-ended
	})
	return frames
}

func rtnl(f func(*rtnetlink.Conn) error) error {
	c, err := rtnetlink.Dial(nil)
	if err != nil {
		return err
	}
	return errors.Join(f(c), c.Close())
}

func findLink(name string) (l link, err error) {
	err = withSession(func(s *session) error {
		l, err = s.link(name)
		return err
	})
	return l, err
}

func setUp(name string, up bool) error {
	l, err := findLink(name)
	if err != nil {
		return err
	}
	m := &rtnetlink.LinkMessage{Index: l.Index, Change: unix.IFF_UP}
	if up {
		m.Flags = unix.IFF_UP
	}
	return rtnl(func(c *rtnetlink.Conn) error {
		_, err := c.Execute(m, unix.RTM_NEWLINK, netlink.Request|netlink.Acknowledge)
		return err
	})
}

// addByHand adds an address without mark and lifetime.
func addByHand(name string, p netip.Prefix) error {
	l, err := findLink(name)
	if err != nil {
		return err
	}
	return withSession(func(s *session) error {
		a := address{Index: l.Index, Local: p.Addr(), Peer: p.Addr(), Bits: p.Bits()}
		if p.Addr().Is6() {
			a.Flags = ifaFlagNoDAD
		}
		verdicts, err := s.addAll([]address{a})
		return errors.Join(append(verdicts, err)...)
	})
}

// removeByHand removes an address behind the Binder's back.
func removeByHand(name string, p netip.Prefix) error {
	l, err := findLink(name)
	if err != nil {
		return err
	}
	return withSession(func(s *session) error {
		verdicts, err := s.removeAll([]address{{Index: l.Index, Local: p.Addr(), Peer: p.Addr(), Bits: p.Bits()}})
		return errors.Join(append(verdicts, err)...)
	})
}

// bound lists the copies of an address in the test's namespace.
func bound(tb testing.TB, p netip.Prefix) (found []address) {
	tb.Helper()
	must(tb, withSession(func(s *session) (err error) {
		found, err = s.copies([]netip.Prefix{p})
		return err
	}))
	return found
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// poll waits until what is expected has come true.
func poll(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("not within 10 s: %s", what)
		}
	}
}
