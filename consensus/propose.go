package consensus

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"github.com/remora-ha/remora/core"
)

// maxProposals bounds the proposals that wait for Raft's loop.
const maxProposals = 256

type proposal struct {
	command core.Command
	expired func() bool
}

// Propose hands a command to Raft and returns at once. Its outcome comes as a core.Committed with the command's ID or as
// a core.ProposalFailed. notAfter, which may be nil, is asked just before the command is handed over, and reports true
// when it is too late for it. Proposals are handed over in the order of the calls.
func (n *Node) Propose(c core.Command, notAfter func() bool) {
	select {
	case n.proposals <- proposal{command: c, expired: notAfter}:
	default:
		// Beside the caller, who may be the one that takes events.
		n.spawn(func() { n.refuse(c.ID, true, "too many proposals wait already") })
	}
}

// refuse reports a proposal that failed.
func (n *Node) refuse(id uint64, known bool, reason string) {
	n.deliver(core.ProposalFailed{ID: id, Known: known, Reason: reason})
}

// ErrDiskStandsStill means that the disk of this node's log does not answer. A node with such a disk leads no more.
var ErrDiskStandsStill = errors.New("the disk of the leader's log stands still")

// ProveDisk returns nil when the disk of this node's log has answered just now, and [ErrDiskStandsStill] if it does not in
// time. What costs clients something before it is committed is begun with a disk that works, or not at all.
func (n *Node) ProveDisk(ctx context.Context) error {
	d := n.store.log
	if d.standsStill() {
		return ErrDiskStandsStill
	}
	answered := make(chan struct{})
	go func() { d.prove(); close(answered) }() // for as long as the disk needs
	late := time.NewTimer(d.patient)
	defer late.Stop()
	select {
	case <-answered:
		return nil
	case <-late.C:
		return ErrDiskStandsStill
	case <-ctx.Done():
		return ctx.Err()
	}
}

// propose hands over the proposals one by one until the node ends.
func (n *Node) propose() {
	for {
		select {
		case p := <-n.proposals:
			n.submit(p)
		case <-n.ctx.Done():
			return
		}
	}
}

func (n *Node) submit(p proposal) {
	id := p.command.ID
	data, err := encodeCommand(p.command)
	if err != nil {
		n.refuse(id, true, err.Error())
		return
	}
	r := n.raft.Load()
	if r == nil {
		n.refuse(id, true, "this node does not take part yet")
		return
	}
	if p.expired != nil && p.expired() {
		n.refuse(id, true, "too late")
		return
	}
	start := n.now()
	await(r.Apply(data, n.lim.enqueue), func(err error) {
		if err != nil {
			n.refuse(id, neverCommitted(err), failure(err))
			return
		}
		n.commits.add(n.now() - start)
	})
}

// failure says what an error of Raft means to somebody who has asked for something.
func failure(err error) string {
	if errors.Is(err, raft.ErrLeadershipTransferInProgress) {
		return "leadership is just being handed on to another node: ask again"
	}
	return err.Error()
}

// await calls done with the outcome of something asked of Raft. Shutdown does not wait for it: a Raft server that ends
// leaves some of what it was asked unanswered.
func await(f raft.Future, done func(error)) {
	go func() { done(f.Error()) }()
}

// neverCommitted reports whether an error of Raft means that the command was not appended to the log. All others leave
// it open: leadership lost while committing, a write that failed (the followers may have the entry, and it may be on
// disk in part and found again after a restart), and a shutdown, with which the library answers commands that are committed and not yet applied too.
func neverCommitted(err error) bool {
	return errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrEnqueueTimeout) ||
		errors.Is(err, raft.ErrLeadershipTransferInProgress)
}
