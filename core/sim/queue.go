package sim

import "github.com/remora-ha/remora/core"

// kind says what an item of the queue is.
type kind uint8

const (
	// worldCall is a call that no process has to be awake for: a fault, the end of a system call, a check.
	worldCall kind = iota
	// processCall is a call inside a process. It waits while the process is frozen and is lost with it.
	processCall
	// processEvent is an event in the mailbox of a process.
	processEvent
	// timer is the machine's timer.
	timer
	// datagram is a message between machines. It is for whatever process is there when it arrives.
	datagram
	// raftMessage is a message between Raft nodes; it waits while the disk blocks the receiver's Raft loop.
	raftMessage
	// raftCall is a call in a Raft loop; it waits likewise.
	raftCall
	// raftElection is the election timer.
	raftElection
	// raftBeat is a leader's heartbeat timer.
	raftBeat
)

// item is something that happens at a point of true time.
type item struct {
	kind kind
	node int8   // on which node
	from int8   // the sender of a message
	gen  uint32 // for which process of the node, 0 if for any
	num  uint32 // which setting of a timer
	msg  core.Message
	ev   core.Event
	raft *raftMsg
	call func()
}

// key orders items: by time, then in the order in which they were put in.
type key struct {
	at   int64
	seq  uint64
	slot int32
}

func (k key) before(o key) bool { return k.at < o.at || k.at == o.at && k.seq < o.seq }

// queue is a heap of keys over slots that are used again, so that it allocates nothing once it has grown.
type queue struct {
	heap  []key
	slots []item
	free  []int32
	seq   uint64
}

func (q *queue) reset() {
	q.heap, q.free, q.seq = q.heap[:0], q.free[:0], 0
	clear(q.slots)
	q.slots = q.slots[:0]
}

func (q *queue) push(at int64, it item) {
	var slot int32
	if n := len(q.free); n > 0 {
		slot = q.free[n-1]
		q.free = q.free[:n-1]
		q.slots[slot] = it
	} else {
		slot = int32(len(q.slots))
		q.slots = append(q.slots, it)
	}
	q.seq++
	q.heap = append(q.heap, key{at: at, seq: q.seq, slot: slot})
	i := len(q.heap) - 1
	k := q.heap[i]
	for i > 0 {
		parent := (i - 1) / 4
		if !k.before(q.heap[parent]) {
			break
		}
		q.heap[i] = q.heap[parent]
		i = parent
	}
	q.heap[i] = k
}

// pop returns the next item and its time. The queue is never empty: every world keeps a check in it.
func (q *queue) pop() (int64, item) {
	top := q.heap[0]
	last := len(q.heap) - 1
	k := q.heap[last]
	q.heap = q.heap[:last]
	if last > 0 {
		q.sink(k)
	}
	it := q.slots[top.slot]
	q.slots[top.slot] = item{}
	q.free = append(q.free, top.slot)
	return top.at, it
}

// sink puts k into the hole at the top of the heap.
func (q *queue) sink(k key) {
	i, n := 0, len(q.heap)
	for {
		least := 4*i + 1
		if least >= n {
			break
		}
		for c := least + 1; c < min(4*i+5, n); c++ {
			if q.heap[c].before(q.heap[least]) {
				least = c
			}
		}
		if !q.heap[least].before(k) {
			break
		}
		q.heap[i] = q.heap[least]
		i = least
	}
	q.heap[i] = k
}
