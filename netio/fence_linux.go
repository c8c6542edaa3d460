package netio

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Fence holds the lease in the kernel, to the millisecond: traffic to and from a guarded address is dropped, on every
// interface and in both directions, unless the address is open and the report that its lease is counted from is alive.
// A process that is killed or frozen stops answering when its lease is over, because it is the kernel that drops.
//
// # Why nothing that comes late opens anything
//
// What expires is not the address but the report. The set "leases" has the number of each report for TTL from a moment
// before it is sent: Arm adds the number and returns, then the report is sent. The maps "addr4" and "addr6" lead from
// each guarded address to the number of a bundle, which is the addresses that are renewed together, and the map "bundles"
// from there to the number of the report that their lease rests on. The rules look the address up there, and the report in
// leases. Opening makes addresses point to a new bundle, or the bundle that they are in already to a report, and so does renewing;
// closing makes it point to none. However late the kernel
// carries that out, whether the process was stopped before, within or after the system call, the address is open no
// longer than the report's number lives, and that was decided before the report was sent. A lease is counted from the
// sending of its report, so the kernel's never ends later than the holder's.
//
// Addresses that time out themselves would leave a hole: a process that is stopped between its look at the clock and
// the kernel's work gives the element a time that is counted from too late a moment, and if it is stopped again before
// it can look at the clock once more, nobody takes that back.
//
// # Giving up is final
//
// A claim, which is an Arm or an Open, may be on its way while an address is given up, and the kernel may carry it out
// afterwards. The set "turn" has one number. Each claim removes and adds that number in its own transaction, which fails
// as a whole if it is not there; each Close puts another in its place. So a claim that was made before the Close is
// either carried out before it, or not at all; it is then made anew without the addresses that were given up. The same
// keeps out the claims of a process whose tables were replaced by another's.
//
// A refused transaction is dear: the kernel waits for an RCU grace period (12 ms and more) before it lets in the next. So a claim
// that begins while an act of giving up is on its way waits for that; only what had begun before can be refused.
//
// Claims have a socket and a lock of their own, and what gives up has others. Close never waits for a claim, except for
// the kernel's own order of transactions; a claim that keeps the processor while it waits for them (see [Fence.SetAlone])
// makes it come as much later as the claim has to wait. None of this needs the RTNL lock. When any program closes a socket of
// netfilter (each run of nft does), the kernel holds up all transactions until what earlier ones deleted is freed: up to
// 40 ms were seen. A lease is not longer for that.
//
// # What the kernel makes of a time
//
// It rounds a timeout down to whole ticks and begins to count at the last tick: a lease ends up to two ticks before TTL
// is over, and not after. The ticks stop while the machine sleeps.
//
// # What is covered
//
// IPv4 and IPv6 to the address (input) and from it (output), ARP for it, and neighbour solicitations and advertisements
// about it. Announcements of another owner pass, so that the node's own neighbour cache follows; so does traffic of this
// node with the address on another node.
//
// ARP frames and neighbour advertisements about it that a process sends through a packet socket, as [Binder] does, are
// covered on the interfaces of [Fence.GuardFrames], if the kernel has a hook for that.
//
// Not covered are packets that are forwarded, other frames of packet sockets, and what the node had sent before its lease
// ended and still waits in a queue of the device or for a neighbour's hardware address. ARP is that of Ethernet and whatever
// else has hardware addresses of six bytes.
type Fence struct {
	cfg    FenceConfig
	tables *fenceTables
	state  fenceState
	ports  fencePorts
	losses chan error

	claimMu sync.Mutex // one claim at a time
	claims  fenceSocket
	yieldMu sync.Mutex // one act of giving up, of building, or of reading, at a time
	turnMu  sync.Mutex // held while the kernel's turn is replaced, which no claim waits out in the kernel
	yields  fenceSocket
	reads   fenceSocket
}

// claimTries bounds how often a claim is made anew because something was given up at the same time.
const claimTries = 16

// NewFence returns a Fence that is not installed yet. It fails with [ErrNoFence] if the kernel can not do what the fence
// needs, which it finds out by building and removing a scratch table, and with [ErrPermission].
func NewFence(cfg FenceConfig) (*Fence, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	f := &Fence{cfg: cfg, losses: make(chan error, 1)}
	f.state.turn = rand.Uint32() // not that of another process
	f.yields.ports = &f.ports
	if err := f.probe(false); err != nil {
		return nil, errors.Join(fmt.Errorf("netio: fence: try a scratch table: %w", lacking(err)), f.Detach())
	}
	frames := f.probe(true) == nil
	if !frames {
		cfg.Logger.Info("this kernel has no nf_tables hook for frames that go out (Linux 5.16 has): a process that is stopped between " +
			"its look at the clock and the sending of an announcement sends that late")
	}
	f.tables = newFenceTables(cfg.Table, frames)
	f.claims = fenceSocket{tables: f.tables, ports: &f.ports, pace: pace{rest: paceRest}}
	f.reads = fenceSocket{tables: f.tables, ports: &f.ports}
	f.yields.tables = f.tables
	if err := errors.Join(f.claims.open(), f.reads.open()); err != nil {
		return nil, errors.Join(fmt.Errorf("netio: fence: %w", err), f.Detach())
	}
	return f, nil
}

// probe builds and removes a scratch table, with or without the hook for frames.
func (f *Fence) probe(frames bool) error {
	f.yields.tables = newFenceTables(f.cfg.Table+".probe", frames)
	if frames {
		f.yields.tables.guardFrames([]string{loopback})
	}
	return f.yields.commit(func(b *fenceBatch) {
		b.clear()
		b.build([]netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}, 0)
		b.arm(1, MinFenceTTL)
		b.clear()
	})
}

// lacking puts ErrNoFence beside the errors by which a kernel says that it has not got something.
func lacking(err error) error {
	for _, errno := range []unix.Errno{unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT, unix.ENOENT, unix.EINVAL} {
		if errors.Is(err, errno) {
			return fmt.Errorf("%w (%w)", ErrNoFence, err)
		}
	}
	return err
}

// Detach closes the fence's sockets and leaves its tables in the kernel, where leases run out and nothing opens.
func (f *Fence) Detach() error {
	f.claimMu.Lock()
	defer f.claimMu.Unlock()
	f.yieldMu.Lock()
	defer f.yieldMu.Unlock()
	return errors.Join(f.claims.close(), f.yields.close(), f.reads.close())
}

// Install builds the tables with the addresses to be guarded, all closed, in the place of whatever an earlier process
// left. At no moment are there no rules if there were some before. It may be repeated.
func (f *Fence) Install(addrs []netip.Addr) error {
	set, err := plainAddrs(addrs)
	if err != nil {
		return fmt.Errorf("netio: fence: install: %w", err)
	}
	f.yieldMu.Lock()
	defer f.yieldMu.Unlock()
	f.state.shutAll()
	f.state.set(set, true)
	if err := f.rebuild(); err != nil {
		return fmt.Errorf("netio: fence: install for %d addresses: %w", len(set), err)
	}
	return nil
}

// rebuild makes the tables anew, all closed. The caller holds yieldMu. What frames are guarded on must not keep the rest from
// being restored.
func (f *Fence) rebuild() error {
	interfaces := f.state.interfaces()
	f.tables.guardFrames(interfaces)
	err := f.build()
	if err == nil || len(interfaces) == 0 {
		return err
	}
	f.tables.guardFrames(nil)
	if err := f.build(); err != nil {
		return err
	}
	var hooked []string
	for _, name := range interfaces { // one by one, since the kernel does not say which it takes no hook for
		if f.hook(append(hooked, name)) {
			hooked = append(hooked, name)
		}
	}
	f.tables.guardFrames(hooked)
	return nil
}

// build is one attempt to rebuild. The caller holds yieldMu.
func (f *Fence) build() error {
	f.turnMu.Lock()
	addrs, turn := f.state.addresses(), f.state.currentTurn()+1
	err := f.yields.commit(func(b *fenceBatch) {
		b.clear()
		b.build(addrs, turn)
	})
	f.state.rebuilt(turn)
	f.turnMu.Unlock()
	f.state.shutAll() // also for claims that began while this was on its way
	if err == nil {
		return nil
	}
	// The answers of the kernel are intermingled with repetitions of the rules. What counts is what it has.
	if f.check() == nil {
		return nil
	}
	return err
}

// SetAddresses replaces the addresses that are guarded: new ones are closed, those that stay keep their state, and those
// that go are no longer guarded, which means that their traffic passes. If the fence is not installed, that installs it.
func (f *Fence) SetAddresses(addrs []netip.Addr) error {
	set, err := plainAddrs(addrs)
	if err != nil {
		return fmt.Errorf("netio: fence: set addresses: %w", err)
	}
	if !f.state.isInstalled() {
		return f.Install(addrs)
	}
	f.yieldMu.Lock()
	defer f.yieldMu.Unlock()
	added, removed := f.state.differences(set)
	if len(added)+len(removed) == 0 {
		return nil
	}
	f.state.shut(removed)
	err = f.yield(func(b *fenceBatch) {
		b.unguard(removed)
		b.guard(added)
	})
	f.state.set(set, true)
	if err == nil {
		return nil
	}
	if err := f.rebuild(); err != nil {
		return fmt.Errorf("netio: fence: guard %d more addresses and %d less: %w", len(added), len(removed), err)
	}
	return nil
}

// yield carries out a transaction that ends the turn of the claims on their way. The caller holds yieldMu.
func (f *Fence) yield(build func(*fenceBatch)) error {
	f.turnMu.Lock()
	defer f.turnMu.Unlock()
	turn := f.state.currentTurn()
	err := f.yields.commitElements(func(b *fenceBatch) {
		b.take(turn, turn+1)
		build(b)
	})
	if err == nil {
		f.state.setTurn(turn + 1)
	}
	return err
}

// Arm lets report seq live in the kernel for ttl from now on, and makes the addresses of open point to the answered
// reports that their leases rest on, all in one transaction. An opening of the same addresses as before, of which none was
// given up since, costs as much as one of a single address. It must have returned without an error before the report
// is sent. Numbers rise from call to call, and those of open are smaller than seq, else it fails with [ErrReportOrder];
// a call that failed may be repeated with the same number. ttl is at least [MinFenceTTL]. An address that is given up
// while Arm is on its way stays closed.
//
// After a loss of the tables addresses open again with the first Arm whose answered reports were armed afterwards.
func (f *Fence) Arm(seq uint64, ttl time.Duration, open []FenceOpening) error {
	return f.arm(f.state.now(), seq, ttl, open)
}

// arm is an Arm that began at generation since: what was given up after that stays closed.
func (f *Fence) arm(since, seq uint64, ttl time.Duration, open []FenceOpening) error {
	f.claimMu.Lock()
	defer f.claimMu.Unlock()
	err := f.state.mayArm(seq, ttl, open)
	if err == nil {
		_, err = f.claim(since, open, func(b *fenceBatch) { b.arm(seq, ttl) })
	}
	if err != nil {
		return fmt.Errorf("netio: fence: arm report %d for %v and extend %d openings: %w", seq, ttl, len(open), err)
	}
	f.state.setArmed(seq)
	return nil
}

// SetAlone tells whether no other node waits for what this process says, as all wait for a leader. Claims that are made often
// may then hold up the whole process while another program holds nf_tables, by which the fence can not be closed in any
// case: a daemon costs less for that. It is false at first.
func (f *Fence) SetAlone(alone bool) {
	f.claimMu.Lock()
	defer f.claimMu.Unlock()
	f.claims.pace.alone = alone
}

// Open makes addresses point to report seq, which was armed and answered. If the report's time is over, they stay
// closed. It returns [ErrLate] if one of them was given up while Open was on its way; that one stays closed too.
func (f *Fence) Open(addrs []netip.Addr, seq uint64) error {
	return f.openSince(f.state.now(), addrs, seq)
}

// openSince is an Open that began at generation since: what was given up after that stays closed.
func (f *Fence) openSince(since uint64, addrs []netip.Addr, seq uint64) error {
	f.claimMu.Lock()
	defer f.claimMu.Unlock()
	err := f.state.mayOpen(seq)
	var left []netip.Addr
	if err == nil {
		left, err = f.claim(since, []FenceOpening{{Addrs: addrs, Report: seq}}, func(*fenceBatch) {})
	}
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("%w: %v was given up meanwhile", ErrLate, left)
	}
	if err != nil {
		return fmt.Errorf("netio: fence: open %v by report %d: %w", addrs, seq, err)
	}
	return nil
}

// Gather prepares sets of addresses that will be opened together, and leaves them closed: the first opening then costs as
// much as one of a single address, as the later ones do. A set stays as it is if one of its addresses is not guarded, or was
// opened or gathered before.
func (f *Fence) Gather(sets [][]netip.Addr) error {
	since := f.state.now()
	f.claimMu.Lock()
	defer f.claimMu.Unlock()
	loose := f.state.loose(sets)
	if len(loose) == 0 {
		return nil
	}
	if _, err := f.claim(since, loose, func(*fenceBatch) {}); err != nil {
		return fmt.Errorf("netio: fence: gather %d sets of addresses: %w", len(loose), err)
	}
	return nil
}

// claim carries out a transaction that may open addresses, without those that are given up after generation since; it
// returns these. The caller holds claimMu.
func (f *Fence) claim(since uint64, open []FenceOpening, more func(*fenceBatch)) (left []netip.Addr, err error) {
	for range claimTries {
		f.turnMu.Lock()
		p, err := f.state.plan(open, since)
		f.turnMu.Unlock()
		if err != nil {
			return nil, err
		}
		err = f.claims.commitElements(func(b *fenceBatch) {
			b.take(p.turn, p.turn)
			more(b)
			b.bundle(p)
		})
		switch {
		case err == nil:
			f.state.carried(p, since)
			return p.left, nil
		case !errors.Is(err, unix.ENOENT):
			f.state.forget()
			return p.left, err
		}
		if err := f.settle(p.turn); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("something was given up %d times meanwhile: try again", claimTries)
}

// settle finds out why a claim was refused: waits for what is being given up, or restores what was lost. Bundles that
// somebody else removed, which closed their addresses, are made anew.
func (f *Fence) settle(turn uint32) error {
	f.yieldMu.Lock()
	defer f.yieldMu.Unlock()
	if f.state.currentTurn() != turn {
		return nil
	}
	f.state.forget()
	return f.repair()
}

// Close drops the traffic of addresses from now on. Claims on their way do not open them again. Addresses that are
// closed already, or not guarded, are no error. To close all that are renewed together costs as much as one. If the tables are gone Close puts them back, with all addresses closed.
func (f *Fence) Close(addrs []netip.Addr) error {
	if len(f.state.shut(addrs)) == 0 {
		return nil
	}
	f.yieldMu.Lock()
	defer f.yieldMu.Unlock()
	guarded := f.state.shut(addrs)
	err := f.yield(func(b *fenceBatch) {
		numbers, single := f.state.closing(guarded)
		b.end(numbers)
		b.point(allClosed(single))
	})
	if err != nil {
		f.cfg.Logger.Warn("fence: can not close addresses one by one, closing all", "addresses", guarded, "error", err)
		err = f.rebuild()
	}
	f.state.shut(addrs) // also for claims that began while this was on its way
	f.state.closed()
	if err != nil {
		return fmt.Errorf("netio: fence: close %v: %w", guarded, err)
	}
	return nil
}

// Remove removes the fence's tables and nothing else. Traffic of the addresses passes from then on.
func (f *Fence) Remove() error {
	f.yieldMu.Lock()
	defer f.yieldMu.Unlock()
	f.state.shutAll()
	f.state.set(nil, false)
	f.state.setTurn(f.state.currentTurn() + 1)
	if err := f.yields.commit((*fenceBatch).clear); err != nil {
		return fmt.Errorf("netio: fence: remove the tables %q: %w", f.cfg.Table, err)
	}
	return nil
}
