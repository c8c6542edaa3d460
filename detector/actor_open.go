package detector

import (
	"context"
	"errors"
	"fmt"
)

// mayOpen returns why a server must not be made writable by a PromoteServer that does nothing else to it. Somebody else looks
// after its replication, so an applier that runs says that he is not done, and to undo what he has begun there must be neither
// a source nor one of MHA's locks.
func (l *line) mayOpen(ctx context.Context, undo bool) error {
	channels, err := l.channels(ctx)
	if err != nil {
		return err
	}
	for _, c := range channels {
		switch {
		case undo:
			return fmt.Errorf("the server replicates from %s by now", c.source)
		case c.applies:
			return fmt.Errorf("the applier of what comes from %s runs", c.source)
		}
	}
	if !undo {
		return nil
	}
	r, err := l.one(ctx, "SELECT "+lockColumns)
	if err != nil {
		return fmt.Errorf("look for MHA's locks: %w", err)
	}
	for _, id := range r { // NULL is absent
		return errors.New("session " + id + " of the server holds one of MHA's locks")
	}
	return nil
}
