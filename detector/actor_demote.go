package detector

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/remora-ha/remora/core"
)

// Error numbers of giving up.
const (
	errNoSuchThread = 1094
	errNotOwner     = 1095
	errTableFull    = 1114
	errLockWait     = 1205
	errReadOnly     = 1290
)

// attempts is how often SET GLOBAL read_only is tried in one Demote, each time for lockWait, with the sessions that may
// hold the lock ended in between. killWait is how long sessions may take to end.
const (
	attempts = 3
	killWait = 5 * time.Second
	killPoll = 2 * time.Millisecond
	// trxPoll is how long the list of transactions has to be left alone: InnoDB does not renew it for those who have read it
	// within a tenth of a second (CACHE_MIN_IDLE_TIME_NS, trx0i_s.cc), and so it would never end.
	trxPoll = 110 * time.Millisecond
)

// Demote makes the server read-only, ends the transactions of its clients after Drain, and reads back. With read_only
// set the commit of a transaction that has written is refused, so Drain serves readers and commits that are under way.
// It ends a Promote that is under way, looks again after that one has ended, and waits for no other act.
func (a *Actor) Demote(ctx context.Context, d core.DemoteServer) core.ServerDemoted {
	out := core.ServerDemoted{Group: d.Group, Epoch: d.Epoch}
	p := a.stopPromotion()
	defer a.demoted()
	out.Err = message(a.with(ctx, a.giveUp, func(l *line) error {
		if p != nil && p.thread != "" {
			if _, err := l.kill(ctx, p.thread); err != nil {
				return err
			}
		}
		if err := a.makeReadOnly(ctx, l); err != nil {
			return err
		}
		if p != nil {
			select { // its last statement may have been carried out after ours
			case <-p.done:
			case <-ctx.Done():
				return fmt.Errorf("wait for the end of the promotion: %w", ctx.Err())
			}
			if err := a.makeReadOnly(ctx, l); err != nil {
				return err
			}
		}
		if err := l.endTransactions(ctx, l.as.User, d.Drain); err != nil {
			return err
		}
		st, err := l.state(ctx)
		if err == nil && st.writable != core.No {
			err = errors.New("the server was made read-only and is writable again: somebody else sets it")
		}
		out.Executed = st.executed.String()
		return err
	}))
	return out
}

// stopPromotion ends the promotion under way, if there is one, and refuses others until demoted is called.
func (a *Actor) stopPromotion() *promotion {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.demotes++
	if a.promotion != nil {
		a.promotion.cancel()
	}
	return a.promotion
}

func (a *Actor) demoted() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.demotes--
}

// makeReadOnly sets the server read-only and reads back. It waits for locks of others, but not long: then it ends the
// sessions that may hold them.
func (a *Actor) makeReadOnly(ctx context.Context, l *line) error {
	var err error
	for range attempts {
		if err = l.exec(ctx, l.dialect.setReadOnly()); err == nil {
			break
		}
		var answer *mysql.MySQLError
		if !errors.As(err, &answer) || answer.Number != errLockWait {
			return err
		}
		ended, killErr := l.killAll(ctx, l.as.User)
		a.log.Warn("a lock kept the server from becoming read-only: clients' sessions were ended", "address", l.as.Address,
			"sessions", ended, "error", err)
		if killErr != nil {
			return errors.Join(err, killErr)
		}
	}
	if err != nil {
		return err
	}
	st, err := l.state(ctx)
	if err == nil && st.writable != core.No {
		err = errors.New("the server does not report read_only although it was set")
	}
	return err
}

// endTransactions waits for the clients' transactions to end, and ends those that are left after drain. Nothing is
// committed any more, since to set read_only waits for commits under way: what is ended here are clients that would
// learn of it late. A session that is not ours to end, one with SYSTEM_USER on MySQL, is left.
func (l *line) endTransactions(ctx context.Context, own string, drain time.Duration) error {
	start := time.Now()
	killed, spared := map[string]bool{}, map[string]bool{}
	for {
		rows, poll, err := l.left(ctx, own)
		var answer *mysql.MySQLError
		if errors.As(err, &answer) && answer.Number == errTableFull {
			_, err = l.killAll(ctx, own) // its disk is full: MySQL has no room for a list of transactions
			return err
		}
		rows = slices.DeleteFunc(rows, func(r row) bool { return spared[r["id"]] })
		if err != nil || len(rows) == 0 {
			return err
		}
		since := time.Since(start)
		if since >= drain {
			for _, r := range rows {
				if killed[r["id"]] {
					continue
				}
				killed[r["id"]] = true
				ours, err := l.kill(ctx, r["id"])
				if err != nil {
					return err
				}
				spared[r["id"]] = !ours
			}
		}
		if since >= drain+killWait {
			return fmt.Errorf("the transactions of %d sessions were killed and have not ended within %v: look at SHOW PROCESSLIST", len(rows), killWait)
		}
		pause(ctx, poll)
	}
}

// left lists the sessions that still have something to do, and how long to wait before they are listed again.
func (l *line) left(ctx context.Context, own string) ([]row, time.Duration, error) {
	rows, err := l.query(ctx, statementWait, l.dialect.askBusy(own))
	if err != nil || len(rows) > 0 {
		return rows, killPoll, err
	}
	rows, err = l.query(ctx, statementWait, l.dialect.askTransactions(own))
	return rows, trxPoll, err
}

// pause waits for d or the end of ctx, which the next statement reports.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// killAll ends all sessions of clients, also those that do nothing: one that holds LOCK TABLES shows neither a statement nor a
// transaction. It returns how many were ours to end.
func (l *line) killAll(ctx context.Context, own string) (ended int, err error) {
	rows, err := l.query(ctx, statementWait, askProcesses)
	for _, r := range rows {
		if !isClient(r, own) || r["id"] == l.thread {
			continue
		}
		ours, killErr := l.kill(ctx, r["id"])
		if killErr == nil && ours {
			ended++
		}
		err = errors.Join(err, killErr)
	}
	return ended, err
}

// kill ends a session. One that has ended already is what was wanted; of one that we may not end ours is false.
func (l *line) kill(ctx context.Context, thread string) (ours bool, err error) {
	err = l.exec(ctx, "KILL "+thread)
	var answer *mysql.MySQLError
	if errors.As(err, &answer) && (answer.Number == errNoSuchThread || answer.Number == errNotOwner) {
		return answer.Number == errNoSuchThread, nil
	}
	return true, err
}
