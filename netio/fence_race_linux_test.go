package netio

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// A claim that was made before an address is given up does not open it afterwards, and what it is about otherwise is
// carried out.
func TestGivingUpIsFinal(t *testing.T) {
	_, a := newNode(t)
	f := newFence(t, fenced...)
	must(t, f.Arm(1, long, nil))
	for name, giveUp := range map[string]func() error{
		"Close":   func() error { return f.Close([]netip.Addr{fence4}) },
		"Install": func() error { return f.Install(fenced) },
	} {
		must(t, f.Open(fenced, 1))
		f.claimMu.Lock()
		var once sync.Once
		left, err := f.claim(f.state.now(), openings(map[netip.Addr]uint64{fence4: 1, fence6: 1}), func(b *fenceBatch) {
			b.arm(2, long)
			once.Do(func() { must(t, giveUp()) }) // the claim is made, and not sent yet
		})
		f.claimMu.Unlock()
		must(t, err)
		if !slices.Contains(left, fence4) {
			t.Errorf("%s: the claim did not leave out %v: %v", name, fence4, left)
		}
		a.silent(fence4, own4)
		must(t, f.Open([]netip.Addr{fence4}, 1)) // a claim that begins later may open it again
		must(t, f.Check())
	}
	f.state.setArmed(2)
	must(t, f.Open([]netip.Addr{fence4}, 2))
	a.expect(fence4)
}

func TestCloseDoesNotWaitForClaims(t *testing.T) {
	_, a := newNode(t)
	f := newFence(t, fenced...)
	must(t, f.Arm(1, long, nil))
	must(t, f.Open(fenced, 1))
	hung, resume := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		f.claimMu.Lock()
		defer f.claimMu.Unlock()
		var once sync.Once
		_, err := f.claim(f.state.now(), openings(map[netip.Addr]uint64{fence4: 1}), func(*fenceBatch) {
			once.Do(func() { close(hung); <-resume })
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-hung
	must(t, f.Close(fenced))
	a.silent(fence4, own4)
	close(resume)
	wg.Wait()
	a.silent(fence4, own4)
}

// The kernel makes whoever sends a transaction that it refuses wait, and all others with it. So a claim that begins while an address is
// being given up is made once that is done.
func TestAClaimWaitsForWhatIsBeingGivenUp(t *testing.T) {
	f := newFence(t, fenced...)
	must(t, f.Arm(1, long, nil))
	const rounds = 300
	made := 0
	for range rounds {
		begun := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			f.yieldMu.Lock()
			defer f.yieldMu.Unlock()
			if err := f.yield(func(*fenceBatch) { close(begun) }); err != nil {
				t.Error(err)
			}
		})
		<-begun
		f.claimMu.Lock()
		_, err := f.claim(f.state.now(), openings(map[netip.Addr]uint64{fence4: 1}), func(*fenceBatch) { made++ })
		f.claimMu.Unlock()
		must(t, err)
		wg.Wait()
	}
	if refused := made - rounds; refused > 0 {
		t.Errorf("%d of %d claims were refused by the kernel", refused, rounds)
	}
}

func TestOpenTellsWhatWasGivenUp(t *testing.T) {
	f := newFence(t, fenced...)
	must(t, f.Arm(1, long, nil))
	var late atomic.Bool
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			if err := f.Open(fenced, 1); errors.Is(err, ErrLate) {
				late.Store(true)
			} else if err != nil {
				t.Error(err)
			}
		}
	})
	poll(t, "an Open that was overtaken by a Close", func() bool {
		must(t, f.Close(fenced))
		return late.Load()
	})
	stop()
	wg.Wait()
}

// Everything at once, and other users of nf_tables besides.
func TestFenceIsSafeForConcurrentUse(t *testing.T) {
	_, a := newNode(t)
	f := newFence(t, fenced...)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	loop := func(act func() error) {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := act(); err != nil && !errors.Is(err, ErrLate) && !errors.Is(err, ErrNotGuarded) {
					t.Error(err)
					return
				}
			}
		})
	}
	var seq uint64
	var acked atomic.Uint64
	loop(func() error {
		var open map[netip.Addr]uint64
		if seq > 0 {
			open = map[netip.Addr]uint64{fence4: seq}
		}
		seq++
		err := f.Arm(seq, long, openings(open))
		if err == nil {
			acked.Store(seq)
		} else {
			seq--
		}
		return err
	})
	loop(func() error {
		if n := acked.Load(); n > 0 {
			return f.Open(fenced, n)
		}
		return nil
	})
	loop(func() error { return f.Close(fenced[rand.IntN(2):]) })
	loop(func() error { return f.SetAddresses(append(many(rand.IntN(50)), fence4)) })
	loop(f.Check)
	other, err := NewFence(FenceConfig{Table: "other"})
	must(t, err)
	defer func() { must(t, errors.Join(other.Remove(), other.Detach())) }()
	loop(func() error { return other.Install(fenced) })
	poll(t, "a few hundred reports", func() bool { return acked.Load() > 300 })
	stop()
	wg.Wait()
	must(t, other.Remove())
	must(t, f.SetAddresses(fenced))
	must(t, f.Close(fenced))
	must(t, f.Check())
	a.silent(fence4, own4)
	a.silent(fence6, own6)
}

func TestFenceNeedsRights(t *testing.T) {
	err := withoutRights(func() error {
		_, err := NewFence(FenceConfig{})
		return err
	})
	wantErr(t, err, ErrPermission)
	f := newFence(t, fence4)
	must(t, f.Arm(1, long, nil))
	wantErr(t, withoutRights(func() error { return f.Arm(2, long, nil) }), ErrPermission)
	must(t, f.Arm(2, long, nil)) // with a new socket
}

func TestWhatAKernelLacks(t *testing.T) {
	for errno, want := range map[unix.Errno]bool{
		unix.EOPNOTSUPP: true, unix.EAFNOSUPPORT: true, unix.EPROTONOSUPPORT: true, unix.ENOENT: true, unix.EINVAL: true,
		unix.ENOMEM: false, unix.EPERM: false, unix.ENOBUFS: false,
	} {
		if got := errors.Is(lacking(errno), ErrNoFence); got != want {
			t.Errorf("%v: %v", errno, got)
		}
	}
}
