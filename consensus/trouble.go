package consensus

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// trouble is what is wrong with the disk now.
type trouble struct {
	op    operation
	text  string
	since time.Time
}

// String is for people.
func (t *trouble) String() string {
	return fmt.Sprintf("%s %s (since %s)", t.op, t.text, time.Since(t.since).Round(time.Millisecond))
}

// operation is a kind of write.
type operation string

const (
	opAppend  operation = "appending to the Raft log"
	opFlush   operation = "moving entries from the journal to the Raft log's database"
	opShorten operation = "shortening the Raft log"
	opTerm    operation = "writing the term"
	opVote    operation = "writing the vote"
	opLongest operation = "writing the longest lease" // to a file of its own
	opProof   operation = "writing a proof that it works"
)

// ails returns what is wrong, nil if nothing is.
func (d *disk) ails() *trouble {
	for _, at := range []*atomic.Pointer[trouble]{&d.stalled, &d.failing, &d.unmoved} {
		if t := at.Load(); t != nil {
			return t
		}
	}
	return nil
}

// standsStill reports whether a write does not end, or what can not be applied before it is done fails again and again.
func (d *disk) standsStill() bool {
	failing := d.failing.Load()
	return d.stalled.Load() != nil || failing != nil && failing.op == opLongest
}

// observe does a write and reports what becomes of it.
func (d *disk) observe(op operation, f func() error) error {
	began := time.Now()
	var mu sync.Mutex
	ended := false
	late := time.AfterFunc(d.patient, func() {
		mu.Lock()
		defer mu.Unlock()
		switch t := (&trouble{op: op, text: "does not end", since: began}); {
		case ended:
		case op == opFlush:
			d.note(&d.unmoved, t)
		default:
			d.hangs(t)
		}
	})
	err := f()
	late.Stop()
	mu.Lock()
	ended = true
	mu.Unlock()
	failing := &d.unmoved
	if op != opFlush {
		d.goesOn(op)
		failing = &d.failing
	}
	if err != nil {
		d.note(failing, &trouble{op: op, text: "fails: " + err.Error(), since: began})
		return fmt.Errorf("%s: %w", op, err)
	}
	d.clear(failing, op)
	return nil
}

// hangs notes a write that does not end.
func (d *disk) hangs(t *trouble) {
	d.hangMu.Lock()
	defer d.hangMu.Unlock()
	d.hanging = append(d.hanging, t)
	d.note(&d.stalled, t)
}

// goesOn notes that a write has ended, well or not. One that hung behind it still does.
func (d *disk) goesOn(op operation) {
	d.hangMu.Lock()
	defer d.hangMu.Unlock()
	d.hanging = slices.DeleteFunc(d.hanging, op.shows)
	switch old := d.stalled.Load(); {
	case old == nil || !op.shows(old):
	case len(d.hanging) > 0:
		d.stalled.Store(d.hanging[0])
	default:
		d.clear(&d.stalled, op)
	}
}

// note keeps the first of a row of troubles.
func (d *disk) note(at *atomic.Pointer[trouble], t *trouble) {
	if !at.CompareAndSwap(nil, t) {
		return
	}
	text := "the disk of state_dir is in trouble: until it works again this node does not lead; what it holds it keeps"
	if t.op == opFlush {
		text = "the disk of state_dir is in trouble: what is appended stays in the journal until it works again"
	}
	d.log.Error(text, "dir", d.dir, "trouble", t.String())
	d.tell()
}

// shows reports whether a trouble is over once a write of this kind was done. One that appends shows that the log's disk
// works, any other only that it can do the like.
func (op operation) shows(t *trouble) bool { return op == t.op || op == opAppend && t.op != opLongest }

// clear notes that a write was done.
func (d *disk) clear(at *atomic.Pointer[trouble], op operation) {
	old := at.Load()
	if old == nil || !op.shows(old) || !at.CompareAndSwap(old, nil) {
		return
	}
	d.log.Info("the disk of state_dir works again", "dir", d.dir, "trouble", old.String())
	d.tell()
}

func (d *disk) tell() {
	if f := d.changed.Load(); f != nil {
		(*f)()
	}
}
