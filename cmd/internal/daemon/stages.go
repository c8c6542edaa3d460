package daemon

import (
	"context"
	"fmt"
	"time"

	"github.com/remora-ha/remora/cmd/internal/control"
	"github.com/remora-ha/remora/core"
)

// stageEvery spaces the looks at the ledger while an operation goes on whose stages somebody wants to be told.
const stageEvery = time.Millisecond

// stages turns what the ledger shows of a group into the stages of its way to another node.
type stages struct {
	before core.GroupState
	moving bool // the move was seen in the ledger
	last   string
}

// next returns the stage that the group is in, or nothing if that is the one before, or if nothing has begun.
func (s *stages) next(now core.GroupState) string {
	text := s.text(now)
	if text == s.last {
		return ""
	}
	s.last = text
	return text
}

func (s *stages) text(now core.GroupState) string {
	promote := now.Spec.Policy == core.Promote
	s.moving = s.moving || now.Move != nil
	switch {
	case now.Handover != nil && now.Epoch > s.before.Epoch:
		return fmt.Sprintf("granted to %s in epoch %d, once %s has given the addresses up", now.Owner, now.Epoch, now.Handover.From)
	case now.Owner != "" && now.Epoch > s.before.Epoch && promote:
		return fmt.Sprintf("granted to %s in epoch %d: its server becomes writable, then the address answers", now.Owner, now.Epoch)
	case now.Owner != "" && now.Epoch > s.before.Epoch:
		return fmt.Sprintf("granted to %s in epoch %d: it binds the addresses", now.Owner, now.Epoch)
	case now.Owner == "" && promote:
		return "nobody owns it: the servers stop their receivers and say what they have"
	case now.Owner == "":
		return "nobody owns it"
	case now.Move == nil && s.moving:
		return fmt.Sprintf("aborted: %s stays the owner", now.Owner)
	case now.Move == nil:
		return s.last
	case now.Move.Drained:
		return fmt.Sprintf("%s is read-only and drained: %s applies what it has not yet", now.Owner, now.Move.To)
	case promote:
		return fmt.Sprintf("%s becomes read-only, its transactions end", now.Owner)
	}
	return fmt.Sprintf("%s gives the addresses up", now.Owner)
}

// staged carries out an operation that brings a group to a node, and tells its stages to whom the context names meanwhile.
func (b backend) staged(ctx context.Context, before core.GroupState, to string, operation func() error) error {
	tell := control.StagesOf(ctx)
	if tell == nil {
		return operation()
	}
	start := time.Now()
	say := func(text string) {
		if text != "" {
			tell(control.Stage{Text: text, AtUS: time.Since(start).Microseconds()})
		}
	}
	done := make(chan error, 1)
	go func() { done <- operation() }()
	s := stages{before: before}
	look := func() { say(s.next(b.d.node.View().Groups[before.Spec.Name])) }
	tick := time.NewTicker(stageEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			look()
			if err == nil {
				say(fmt.Sprintf("%s serves", to))
			}
			return err
		case <-tick.C:
			look()
		}
	}
}
