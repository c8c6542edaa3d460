package lab

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Lab is a laboratory that is up. Its methods may be called from several goroutines.
type Lab struct {
	opts   Options
	dir    string
	sw     *Namespace
	client *Host
	router *Host
	nodes  []*Node
	hosts  map[string]*Host // every host by name
	record *record

	filter  *filter
	faultMu sync.Mutex
	faults  faults

	addrs *addrWatch
	arps  *arpWatch
	nds   *ndWatch // nil without an IPv6 address

	streamMu sync.Mutex
	streams  []*Stream
	queries  *Queries
	probers  []*Prober
	// series counts the probers, each of which has numbers of its own for its questions.
	series atomic.Uint32

	eventMu sync.Mutex
	events  []Event

	keep      atomic.Bool
	closeOnce sync.Once
	closeErr  error
}

// Node is a node of a laboratory.
type Node struct {
	*Host
	Witness bool

	lab    *Lab
	index  int    // among the nodes with a server, from 0
	dir    string // the node's files
	mu     sync.Mutex
	server *Process
	daemon *Process
}

// New builds the network of a laboratory and starts the observers of addresses and announcements. It first removes what crashed
// runs under the same root left. It lets the Go runtime of this process run at least eight threads at once, so that an
// observer that wakes up never waits for a turn.
func New(ctx context.Context, opts Options) (*Lab, error) {
	opts, err := opts.complete()
	if err != nil {
		return nil, fmt.Errorf("laboratory: %w", err)
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("laboratory: network namespaces need root: run this as root")
	}
	if runtime.GOMAXPROCS(0) < 8 {
		runtime.GOMAXPROCS(8)
	}
	if swept, err := Sweep(opts.Root); err != nil {
		return nil, fmt.Errorf("laboratory: remove what a former run left: %w", err)
	} else if len(swept) > 0 {
		opts.Log.Info("removed what a former run left", "laboratories", swept)
	}
	l := plan(opts)
	if err := l.raise(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("laboratory %s: %w", opts.Name, err), l.tearDown())
	}
	return l, nil
}

// plan lays out the hosts; nothing exists yet.
func plan(opts Options) *Lab {
	l := &Lab{opts: opts, dir: opts.dir(), hosts: map[string]*Host{}, faults: newFaults(),
		client: newHost("client", hostClient), router: newHost("router", hostRouter)}
	l.hosts["client"], l.hosts["router"] = l.client, l.router
	servers, witnesses := 0, 0
	for _, o := range opts.Nodes {
		n := &Node{Witness: o.Witness, lab: l, dir: filepath.Join(opts.dir(), o.Name), index: -1}
		if o.Witness {
			n.Host = newHost(o.Name, hostWitness+witnesses)
			witnesses++
		} else {
			n.Host, n.index = newHost(o.Name, hostNode+servers), servers
			servers++
		}
		l.nodes = append(l.nodes, n)
		l.hosts[o.Name] = n.Host
	}
	return l
}

func (l *Lab) raise(ctx context.Context) error {
	hosts := l.allHosts()
	if err := l.makeDirs(hosts); err != nil {
		return err
	}
	sw, err := buildNetwork(ctx, l.opts.Name, hosts, l.opts.NoIPv6)
	l.sw = sw
	if err != nil {
		return err
	}
	if l.filter, err = newFilter(sw); err != nil {
		return err
	}
	if l.addrs, err = watchAddrs(sw, hosts, l.opts.VIPs, l.note); err != nil {
		return err
	}
	if l.arps, err = watchARP(sw, hosts, l.opts.VIPs, l.note); err != nil {
		return err
	}
	if l.opts.hasIPv6() {
		if l.nds, err = watchND(sw, hosts, l.opts.VIPs, l.note); err != nil {
			return err
		}
	}
	return l.setUpEnds()
}

// setUpEnds lets the router forward and gives the client all ports: it opens a thousand connections a second.
func (l *Lab) setUpEnds() error {
	return errors.Join(
		l.router.NS.Do(func() error { return writeSysctl("net/ipv4/ip_forward", "1") }),
		l.client.NS.Do(func() error { return writeSysctl("net/ipv4/ip_local_port_range", "1024 65535") }))
}

// makeDirs makes the directories, which must not exist yet, and the record.
func (l *Lab) makeDirs(hosts []*Host) error {
	if err := os.MkdirAll(l.opts.Root, 0o755); err != nil {
		return fmt.Errorf("make the directory of all laboratories: %w", err)
	}
	if err := os.Mkdir(l.dir, 0o755); err != nil {
		return fmt.Errorf("make the laboratory's directory: %w", err)
	}
	if err := l.openRecord(hosts); err != nil {
		return errors.Join(err, os.RemoveAll(l.dir))
	}
	for _, n := range l.nodes {
		if err := os.Mkdir(n.dir, 0o755); err != nil {
			return fmt.Errorf("make the directory of %s: %w", n.Name, err)
		}
	}
	return nil
}

// openRecord writes down what is about to be made.
func (l *Lab) openRecord(hosts []*Host) error {
	owner, err := identify(os.Getpid(), "the laboratory")
	if err != nil {
		return err
	}
	r := &record{dir: l.dir}
	err = r.update(func(s *state) {
		s.Name, s.Owner = l.opts.Name, owner
		s.Namespaces = []string{l.opts.Name + "-switch"}
		for _, h := range hosts {
			s.Namespaces = append(s.Namespaces, l.opts.Name+"-"+h.Name)
		}
	})
	if err == nil {
		l.record = r
	}
	return err
}

// Keep lets Close leave the laboratory up; SweepAll removes it.
func (l *Lab) Keep() { l.keep.Store(true) }

// Close removes the laboratory, or leaves it up after Keep.
func (l *Lab) Close() error {
	l.closeOnce.Do(func() {
		if !l.keep.Load() {
			l.closeErr = l.tearDown()
			return
		}
		l.stopObservers()
		l.closeErr = l.record.update(func(s *state) { s.Kept = true })
		l.closeNamespaces()
	})
	return l.closeErr
}

func (l *Lab) tearDown() error {
	l.stopObservers()
	l.closeNamespaces()
	if l.record == nil {
		return nil // nothing was made
	}
	if err := demolish(l.dir); err != nil {
		return fmt.Errorf("remove laboratory %s: %w", l.opts.Name, err)
	}
	return nil
}

func (l *Lab) stopObservers() {
	l.streamMu.Lock()
	defer l.streamMu.Unlock()
	for _, s := range l.streams {
		s.Stop()
	}
	if l.queries != nil {
		l.queries.Stop()
	}
	for _, p := range l.probers {
		p.Stop()
	}
	if l.addrs != nil {
		l.addrs.close()
	}
	if l.arps != nil {
		l.arps.close()
	}
	if l.nds != nil {
		l.nds.close()
	}
}

func (l *Lab) closeNamespaces() {
	if l.sw != nil {
		l.sw.close()
	}
	for _, h := range l.allHosts() {
		if h.NS != nil {
			h.NS.close()
		}
	}
}

func (l *Lab) allHosts() []*Host {
	hosts := []*Host{l.client, l.router}
	for _, n := range l.nodes {
		hosts = append(hosts, n.Host)
	}
	return hosts
}

func (l *Lab) host(name string) (*Host, error) {
	if h, ok := l.hosts[name]; ok {
		return h, nil
	}
	return nil, fmt.Errorf("the laboratory has no host %q", name)
}

// Name returns the laboratory's name, the prefix of its namespaces.
func (l *Lab) Name() string { return l.opts.Name }

// Dir returns the laboratory's directory, with one directory per node inside.
func (l *Lab) Dir() string { return l.dir }

// Remora returns the path of the daemon's binary.
func (l *Lab) Remora() string { return l.opts.Remora }

// VIP returns the first virtual address.
func (l *Lab) VIP() netip.Addr { return l.opts.VIPs[0].Addr() }

// Client returns the client's host.
func (l *Lab) Client() *Host { return l.client }

// Router returns the router's host.
func (l *Lab) Router() *Host { return l.router }

// Switch returns the namespace of the bridge.
func (l *Lab) Switch() *Namespace { return l.sw }

// Nodes returns all nodes in the order of the options.
func (l *Lab) Nodes() []*Node { return slices.Clone(l.nodes) }

// Servers returns the nodes that have a database server.
func (l *Lab) Servers() []*Node {
	return slices.DeleteFunc(l.Nodes(), func(n *Node) bool { return n.Witness })
}

// Node returns a node by name. It panics on a name that the laboratory was not made with: that is a mistake of the
// caller's program.
func (l *Lab) Node(name string) *Node {
	for _, n := range l.nodes {
		if n.Name == name {
			return n
		}
	}
	panic(fmt.Sprintf("lab: no node %q", name))
}

// AddrEvents returns the address events so far, in the kernel's order. An error means that some are missing.
func (l *Lab) AddrEvents() ([]AddrEvent, error) { return l.addrs.snapshot() }

// ARPFrames returns all ARP frames that crossed the bridge so far.
func (l *Lab) ARPFrames() ([]ARPFrame, error) { return l.arps.snapshot() }

// Announcement is a frame on the bridge that told everybody who has an address: gratuitous ARP, or for IPv6 an unsolicited
// neighbour advertisement to all nodes.
type Announcement struct {
	Time time.Time // the kernel's time stamp
	Node string    // who sent it, by the source address of the frame; empty if unknown
	Addr netip.Addr
}

// Announced returns the announcements of one of the VIPs so far.
func (l *Lab) Announced(addr netip.Addr) ([]Announcement, error) {
	switch {
	case addr.Is6() && l.nds == nil:
		return nil, nil
	case addr.Is6():
		return l.nds.snapshot(addr)
	}
	frames, err := l.arps.snapshot()
	var as []Announcement
	for _, f := range frames {
		if f.Gratuitous() && f.SenderIP == addr {
			as = append(as, Announcement{Time: f.Time, Node: f.Node, Addr: addr})
		}
	}
	return as, err
}

// Overlaps returns the times for which two nodes held addr at once, from the beginning.
func (l *Lab) Overlaps(addr netip.Addr) ([]Overlap, error) {
	events, err := l.AddrEvents()
	return Overlaps(events, addr), err
}

// Holder returns the name of the node that holds addr now by the kernel's events, empty if nobody does. If several do,
// it is the one that got it last.
func (l *Lab) Holder(addr netip.Addr) string {
	events, _ := l.AddrEvents()
	hs := Holdings(events, addr)
	for _, h := range slices.Backward(hs) {
		if h.To.IsZero() {
			return h.Node
		}
	}
	return ""
}

// poll calls check every interval until it returns true, an error that is not nil, or the context ends.
func poll(ctx context.Context, interval time.Duration, check func() (bool, error)) error {
	for {
		done, err := check()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(interval):
		}
	}
}

func randomName() string {
	var b [3]byte
	rand.Read(b[:])
	return "rl-" + hex.EncodeToString(b[:])
}
