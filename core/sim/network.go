package sim

import (
	"time"

	"github.com/remora-ha/remora/core"
)

// maxNodes is the largest cluster.
const maxNodes = 7

// network loses, delays, reorders and duplicates what nodes send to each other.
type network struct {
	cut       [maxNodes][maxNodes]bool // from, to
	base      time.Duration            // one way
	jitter    time.Duration            // mean of what comes on top
	loss, dup float64
	long      float64 // probability that a datagram takes up to longMax
	longMax   time.Duration
	slow      [maxNodes]time.Duration // added to what a node sends
	quietLoss float64
	quietLong float64
}

// heal mends all links and takes loss and delays back to what the seed calls quiet.
func (n *network) heal() {
	n.cut = [maxNodes][maxNodes]bool{}
	n.slow = [maxNodes]time.Duration{}
	n.loss, n.long = n.quietLoss, n.quietLong
}

// partition lets only nodes with the same side reach each other.
func (n *network) partition(side [maxNodes]bool) {
	for a := range maxNodes {
		for b := range maxNodes {
			n.cut[a][b] = side[a] != side[b]
		}
	}
}

func (w *world) delay(from int) time.Duration {
	return w.net.base + w.net.slow[from] + w.dice.about(w.net.jitter)
}

// send puts a datagram of a machine on the wire.
func (w *world) send(from, to int, m core.Message) {
	if from == to {
		w.q.push(w.now+int64(w.dice.between(0, 50*time.Microsecond)), item{kind: datagram, node: int8(to), from: int8(from), msg: m})
		return
	}
	copies := 1
	if w.net.dup > 0 && w.dice.chance(w.net.dup) {
		copies = 2
	}
	for range copies {
		if w.net.cut[from][to] || w.dice.chance(w.net.loss) {
			continue
		}
		d := w.delay(from)
		if w.net.long > 0 && w.dice.chance(w.net.long) {
			d += w.dice.between(0, w.net.longMax)
		}
		w.q.push(w.now+int64(d), item{kind: datagram, node: int8(to), from: int8(from), msg: m})
	}
}

// sendRaft puts a Raft message on its way. Raft speaks over TCP: a lost segment is a late one, and a cut link loses it.
func (w *world) sendRaft(from, to int, m *raftMsg) {
	if w.net.cut[from][to] {
		return
	}
	d := w.delay(from)
	if w.dice.chance(w.net.loss) {
		d += 200 * time.Millisecond
	}
	w.q.push(w.now+int64(d), item{kind: raftMessage, node: int8(to), from: int8(from), raft: m})
}
