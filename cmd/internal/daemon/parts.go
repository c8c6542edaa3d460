package daemon

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"
)

// parts work beside the loop until they are ended. None of them can be done without: a daemon whose detector has ended would take
// its server for healthy for ever, and one without Raft would stand idle and look well. So the first that fails ends the daemon.
type parts struct {
	ctx    context.Context
	end    context.CancelFunc
	work   errgroup.Group
	broken chan error // has the error of the first that has failed
}

func newParts() *parts {
	p := &parts{broken: make(chan error, 1)}
	p.ctx, p.end = context.WithCancel(context.Background())
	return p
}

// run lets a part work, which returns when its context ends. One that returns nil before has nothing more to do.
func (p *parts) run(part func(context.Context) error) {
	p.work.Go(func() error {
		err := part(p.ctx)
		if err != nil && p.ctx.Err() == nil {
			select {
			case p.broken <- err:
			default: // the daemon ends for another's error
			}
		}
		return err
	})
}

// wait returns when all parts have ended, with the error of one that has failed unless it is told already.
func (p *parts) wait(told error) error {
	if err := p.work.Wait(); !errors.Is(told, err) {
		return err
	}
	return nil
}
