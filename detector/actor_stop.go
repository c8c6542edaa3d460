package detector

import (
	"context"
	"fmt"
	"time"
)

// stopPatience is how long an applier may take to stop by itself, stopPoll how often it is helped after that.
const (
	stopPatience = 30 * time.Millisecond
	stopPoll     = 100 * time.Millisecond
)

// stopReplication stops both threads of a channel. A source that died in the middle of a transaction has left a part of it,
// for whose rest the appliers of MySQL wait a minute when they are stopped (SLAVE_WAIT_GROUP_DONE, rpl_replica.cc). That
// rest will never come, so those that wait are ended: they roll back, and whoever has the transaction sends it again.
func (a *Actor) stopReplication(ctx context.Context, l *line, channel string) error {
	if l.dialect.mariadb {
		return l.exec(ctx, l.dialect.stop(channel))
	}
	ctx, cancel := context.WithCancel(ctx)
	helped := make(chan error, 1)
	stopped := make(chan struct{})
	go func() { helped <- a.endWaitingAppliers(ctx, stopped) }()
	err := l.exec(ctx, l.dialect.stop(channel))
	close(stopped)
	cancel()
	if why := <-helped; err != nil && why != nil {
		return fmt.Errorf("%w (%w)", err, why)
	}
	return err
}

// endWaitingAppliers ends the workers that wait for more of a transaction, until the applier has stopped.
func (a *Actor) endWaitingAppliers(ctx context.Context, stopped <-chan struct{}) error {
	pause(ctx, stopPatience)
	if ctx.Err() != nil {
		return nil
	}
	l, err := a.as.Load().dial(ctx)
	if err != nil {
		return fmt.Errorf("end appliers that wait: %w", err)
	}
	defer l.close()
	for {
		select {
		case <-stopped:
			return nil
		default:
		}
		rows, err := l.query(ctx, statementWait, "SELECT ID AS id FROM information_schema.PROCESSLIST "+
			"WHERE USER = 'system user' AND STATE = 'Waiting for an event from Coordinator'")
		if err != nil {
			return err
		}
		for _, r := range rows {
			if ours, err := l.kill(ctx, r["id"]); err != nil {
				return err
			} else if !ours {
				return fmt.Errorf("the applier waits for the rest of a transaction, and may not be ended without SYSTEM_USER: " +
					"grant what 'remora mysql grants --policy promote' prints")
			}
		}
		pause(ctx, stopPoll)
	}
}
