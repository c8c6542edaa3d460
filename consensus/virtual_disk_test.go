package consensus

import (
	"errors"
	"maps"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
)

// platter is what a disk holds of a Raft log.
type platter struct {
	first, last uint64
	logs        map[uint64]raft.Log
	words       map[string][]byte
	numbers     map[string]uint64
}

func newPlatter() *platter {
	return &platter{logs: map[uint64]raft.Log{}, words: map[string][]byte{}, numbers: map[string]uint64{}}
}

func (p *platter) clone() *platter {
	return &platter{first: p.first, last: p.last, logs: maps.Clone(p.logs), words: maps.Clone(p.words), numbers: maps.Clone(p.numbers)}
}

// drive is the disk of a virtual machine, over the restarts of its process. Its writes can fail, or stand still, all until
// the same moment: one of them may hold a mutex of type disk, and if another waited for that while time has to pass, time
// would not.
type drive struct {
	mu      sync.Mutex
	dice    *rand.Rand
	p       *platter
	stalled time.Time // until then
	failing time.Time // until then
	trip    func()    // what happens to the disk when a command is appended next
}

func newDrive(seed uint64) *drive {
	return &drive{dice: rand.New(rand.NewPCG(seed, 1)), p: newPlatter()}
}

// stall lets writes stand still for a while, or for what is left of an earlier while if that is longer.
func (d *drive) stall(span time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stalled = later(d.stalled, time.Now().Add(span))
}

func (d *drive) fail(span time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failing = time.Now().Add(span)
}

// trips has something happen to the disk with the next append of a command, nothing if f is nil. The lock is held then.
func (d *drive) trips(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.trip = f
}

// mend ends all trouble.
func (d *drive) mend() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.trip = nil
	d.failing = time.Time{} // a stall lasts as long as was said: those who wait know no better
}

// image returns a copy of what is on the disk, and restore puts one back.
func (d *drive) image() *platter {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.p.clone()
}

// has reports whether an entry is on the disk, or was and is a part of a snapshot now.
func (d *drive) has(index, term uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return index < d.p.first || d.p.logs[index].Term == term
}

func (d *drive) restore(p *platter) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.p = p.clone()
}

// opened is a drive as one process has it open. It is a backend.
type opened struct {
	d      *drive
	killed chan struct{} // closed when the process is dead
}

var errKilled = errors.New("the process is dead")

// write carries out a change. A process that dies in a write does not know whether it was carried out.
func (o opened) write(change func(p *platter)) error {
	for {
		o.d.mu.Lock()
		wait := time.Until(o.d.stalled)
		if wait <= 0 {
			break
		}
		o.d.mu.Unlock()
		t := time.NewTimer(wait)
		select {
		case <-t.C:
			continue
		case <-o.killed:
		}
		t.Stop()
		o.d.mu.Lock()
		defer o.d.mu.Unlock()
		if o.d.dice.IntN(2) == 0 {
			change(o.d.p)
		}
		return errKilled
	}
	defer o.d.mu.Unlock()
	select {
	case <-o.killed:
		return errKilled
	default:
	}
	if time.Now().Before(o.d.failing) {
		if o.d.dice.IntN(3) == 0 {
			change(o.d.p) // the write was good, and only the flush failed
		}
		return syscall.EIO
	}
	change(o.d.p)
	return nil
}

func (o opened) FirstIndex() (uint64, error) {
	return look(o, func(p *platter) uint64 { return p.first }), nil
}
func (o opened) LastIndex() (uint64, error) {
	return look(o, func(p *platter) uint64 { return p.last }), nil
}

func (o opened) GetLog(i uint64, l *raft.Log) error {
	if *l = look(o, func(p *platter) raft.Log { return p.logs[i] }); l.Index != i || i == 0 {
		return raft.ErrLogNotFound
	}
	return nil
}

func (o opened) StoreLog(l *raft.Log) error { return o.StoreLogs([]*raft.Log{l}) }

func (o opened) StoreLogs(ls []*raft.Log) error {
	o.d.mu.Lock()
	if o.d.trip != nil && ls[0].Type == raft.LogCommand {
		o.d.trip()
		o.d.trip = nil
	}
	o.d.mu.Unlock()
	return o.write(func(p *platter) {
		for _, l := range ls {
			p.logs[l.Index] = *l
			if p.first == 0 {
				p.first = l.Index
			}
			p.last = max(p.last, l.Index)
		}
	})
}

func (o opened) DeleteRange(first, last uint64) error {
	return o.write(func(p *platter) {
		for i := first; i <= last; i++ {
			delete(p.logs, i)
		}
		if len(p.logs) == 0 {
			p.first, p.last = 0, 0
			return
		}
		if first <= p.first {
			p.first = last + 1
		}
		if last >= p.last {
			p.last = first - 1
		}
	})
}

func (o opened) Set(key, val []byte) error {
	val = append([]byte(nil), val...)
	return o.write(func(p *platter) { p.words[string(key)] = val })
}

func (o opened) SetUint64(key []byte, v uint64) error {
	return o.write(func(p *platter) { p.numbers[string(key)] = v })
}

func (o opened) Get(key []byte) ([]byte, error) {
	return look(o, func(p *platter) []byte { return p.words[string(key)] }), nil
}

func (o opened) GetUint64(key []byte) (uint64, error) {
	return look(o, func(p *platter) uint64 { return p.numbers[string(key)] }), nil
}

func (o opened) Close() error { return nil }

func look[T any](o opened, f func(*platter) T) T {
	o.d.mu.Lock()
	defer o.d.mu.Unlock()
	return f(o.d.p)
}
