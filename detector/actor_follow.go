package detector

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/gtid"
)

// sourceLost is how a MariaDB source refuses a replica that has what the source lacks, and any source one that needs what
// it has purged (ER_MASTER_FATAL_ERROR_READING_BINLOG).
const sourceLost = "error 1236"

// Follow points the server to a source by GTID, read-only, unless it has transactions that the source lacks: then nothing
// is touched and they are named in Errant. So are those that MariaDB's positions do not show but the states of the binary
// logs do. If the source refuses the replica all the same, the server's position is in Errant, and its replication is
// stopped again.
func (a *Actor) Follow(ctx context.Context, f core.FollowServer) core.ServerFollows {
	out := core.ServerFollows{Group: f.Group, Epoch: f.Epoch}
	out.Err = message(a.with(ctx, a.work, func(l *line) (err error) {
		out.Errant, err = a.follow(ctx, l, f)
		return err
	}))
	return out
}

func (a *Actor) follow(ctx context.Context, l *line, f core.FollowServer) (errant string, err error) {
	theirs, err := gtid.Parse(l.dialect.flavour(), f.SourceExecuted)
	if err != nil {
		return "", err
	}
	st, err := l.state(ctx)
	if err != nil {
		return "", err
	}
	if e := st.executed.Subtract(theirs); !e.Empty() {
		return e.String(), nil
	}
	channels, err := l.channels(ctx)
	if err != nil {
		return "", err
	}
	if st.writable != core.No {
		if err := a.makeReadOnly(ctx, l); err != nil {
			return "", err
		}
		if st, err = l.state(ctx); err != nil { // it may have written meanwhile
			return "", err
		}
		if e := st.executed.Subtract(theirs); !e.Empty() {
			return e.String(), nil
		}
	}
	if l.dialect.mariadb {
		if errant, err := l.forked(ctx, f); err != nil || errant != "" {
			return errant, err
		}
	}
	if len(channels) == 1 && channels[0].source == f.Source.String() && channels[0].byGTID && channels[0].receiving && channels[0].applies {
		return "", l.waitThreads(ctx)
	}
	if errant, err := a.repoint(ctx, l, channels, st, f); err != nil || errant != "" {
		return errant, err
	}
	err = l.waitThreads(ctx)
	if err != nil && l.dialect.mariadb && strings.Contains(err.Error(), sourceLost) {
		return st.executed.String(), errors.Join(err, l.exec(ctx, l.dialect.stop("")))
	}
	return "", err
}

// repoint ends the replication that there is and begins the new one. A MariaDB whose appliers have gone on since checked, its state
// when it was compared with the source, is compared again once they stand still. What the source lacks is returned, and nothing is
// begun then.
func (a *Actor) repoint(ctx context.Context, l *line, channels []channel, checked state, f core.FollowServer) (errant string, err error) {
	if l.as.ReplicationUser == "" {
		return "", errors.New("there is no replication account: add [replication] with user and password_file to the configuration")
	}
	password := ""
	if l.as.ReplicationPassword != nil {
		if password, err = l.as.ReplicationPassword(); err != nil {
			return "", err
		}
	}
	for _, c := range channels {
		if err := a.stopReplication(ctx, l, c.name); err != nil {
			return "", err
		}
	}
	st := checked
	if l.dialect.mariadb {
		if st, err = l.state(ctx); err != nil {
			return "", err
		}
		if st.executed.String() != checked.executed.String() {
			if errant, err := l.forked(ctx, f); err != nil || errant != "" {
				return errant, err
			}
		}
	}
	for _, c := range channels {
		if err := l.exec(ctx, l.dialect.forget(c.name)); err != nil {
			return "", err
		}
	}
	if l.dialect.mariadb {
		// What this server wrote itself, as the primary, is in its binary log and not in gtid_slave_pos, from which it
		// would ask the source for its own transactions.
		if err := l.exec(ctx, "SET GLOBAL gtid_slave_pos = "+quote(st.executed.String())); err != nil {
			return "", err
		}
	}
	to := source{host: f.Source.Addr().String(), port: f.Source.Port(), user: l.as.ReplicationUser, password: password, tls: l.as.ReplicationTLS}
	if err := l.exec(ctx, l.dialect.follow(to)); err != nil {
		return "", hide(err, password)
	}
	return "", l.exec(ctx, l.dialect.start())
}

// waitThreads waits until both threads run.
func (l *line) waitThreads(ctx context.Context) error {
	end := time.Now().Add(threadsWait)
	for {
		rows, err := l.query(ctx, statementWait, l.dialect.askReplica())
		if err != nil {
			return err
		}
		var io, sql, failure string
		for _, r := range rows {
			io, sql = r["replica_io_running"], r["replica_sql_running"]
			if no := r["last_io_errno"]; no != "0" && no != "" {
				failure = "receiver: error " + no + ": " + r["last_io_error"]
			}
			if no := r["last_sql_errno"]; no != "0" && no != "" {
				failure += " applier: error " + no + ": " + r["last_sql_error"]
			}
		}
		if io == "Yes" && sql == "Yes" && failure == "" {
			return nil
		}
		// A receiver that is still connecting tries again by itself; one that says No has given up.
		if failure != "" && (io == "No" || sql == "No") || time.Now().After(end) {
			return fmt.Errorf("replication was started and does not run: receiver %s, applier %s: %s", io, sql, strings.TrimSpace(failure))
		}
		pause(ctx, 5*time.Millisecond)
	}
}
