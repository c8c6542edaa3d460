package detector

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/gtid"
)

// applyWait is how long the applier may take for what has been received before a change to GTID is given up.
const applyWait = 10 * time.Second

// byPosition is the alarm about a replica that was by GTID once.
const byPosition = "it replicates by file and position and not by GTID any more (Using_Gtid: No), as MHA leaves MariaDB's replicas: " +
	"'remora mysql use-gtid' on this node repairs that once it has caught up"

// UsesGTID is what UseGTID has done.
type UsesGTID struct {
	Source string
	// Position is where by GTID the replica goes on. It is empty if nothing was to be done.
	Position string
}

// UseGTID has a MariaDB replica that reads by file and position, as MHA leaves it, go on by GTID from the same source. Both
// positions must be the same place: the receiver is stopped, the applier applies what was received, and the source says
// which GTIDs its binary log has up to there. If these are not what the replica has executed, or anything else is not as it
// should be, it goes on as before, and the error says why. So it does when the source refuses the GTIDs.
func (a *Actor) UseGTID(ctx context.Context) (done UsesGTID, err error) {
	err = a.with(ctx, a.work, func(l *line) (err error) {
		done, err = a.useGTID(ctx, l)
		return err
	})
	return done, err
}

func (a *Actor) useGTID(ctx context.Context, l *line) (UsesGTID, error) {
	c, err := l.onlyChannel(ctx)
	done := UsesGTID{Source: c.source}
	if err != nil || c.byGTID {
		return done, err
	}
	if err := a.fitForGTID(ctx, l, c); err != nil {
		return done, err
	}
	if err := l.exec(ctx, l.dialect.stopReceiver("")); err != nil {
		return done, err
	}
	done.Position, err = a.changeToGTID(ctx, l, c)
	if err != nil {
		// The caller may have no more time, and the replica shall run all the same.
		again, cancel := context.WithTimeout(context.WithoutCancel(ctx), statementWait)
		defer cancel()
		err = errors.Join(fmt.Errorf("it goes on by file and position: %w", err), l.exec(again, l.dialect.start()))
	}
	return done, err
}

// onlyChannel returns the source that the server replicates from, if it is one without a name.
func (l *line) onlyChannel(ctx context.Context) (channel, error) {
	if !l.dialect.mariadb {
		return channel{}, errors.New("the server is no MariaDB: MySQL's replicas keep their GTIDs")
	}
	channels, err := l.channels(ctx)
	switch {
	case err != nil:
		return channel{}, err
	case len(channels) != 1 || channels[0].name != "":
		return channel{}, fmt.Errorf("the server has %d sources: this is for a replica with one, which has no name", len(channels))
	}
	return channels[0], nil
}

// fitForGTID looks at what must be before anything is touched.
func (a *Actor) fitForGTID(ctx context.Context, l *line, c channel) error {
	st, err := l.state(ctx)
	switch {
	case err != nil:
		return err
	case st.writable != core.No:
		return errors.New("the server is writable: a replica must be read-only, or it may have transactions of its own")
	case !c.receiving || !c.applies || c.failure != "":
		return fmt.Errorf("its replication from %s does not run: repair it first: %s", c.source, c.failure)
	}
	r, err := l.one(ctx, askBinlogState)
	if err != nil {
		return err
	}
	ours, err := gtid.ParseState(r["state"])
	if err != nil {
		return err
	}
	text, err := l.as.askSource(ctx, c.source, askBinlogState)
	if err != nil {
		return err
	}
	theirs, err := gtid.ParseState(text)
	if err != nil {
		return err
	}
	if lacking := ours.Lacking(theirs); len(lacking) > 0 {
		return fmt.Errorf("it has transactions that its source lacks (%s): build it anew from a copy", lacking)
	}
	return nil
}

// changeToGTID does it, with the receiver stopped.
func (a *Actor) changeToGTID(ctx context.Context, l *line, c channel) (string, error) {
	if err := l.waitReceived(ctx); err != nil {
		return "", err
	}
	if err := l.exec(ctx, l.dialect.stop("")); err != nil {
		return "", err
	}
	r, err := l.one(ctx, l.dialect.askReplica())
	if err != nil {
		return "", err
	}
	file, at := r["relay_source_log_file"], r["exec_source_log_pos"]
	known, err := l.as.askSource(ctx, c.source, fmt.Sprintf("SELECT COALESCE(BINLOG_GTID_POS(%s, %s), '') AS known", quote(file), at))
	if err != nil {
		return "", err
	}
	theirs, err := gtid.Parse(gtid.MariaDB, known)
	if err != nil {
		return "", err
	}
	st, err := l.state(ctx)
	switch {
	case err != nil:
		return "", err
	case theirs.Empty():
		return "", fmt.Errorf("%s does not know the GTIDs at %s:%s of its binary log", c.source, file, at)
	case gtid.Compare(theirs, st.executed) != gtid.Equal:
		return "", fmt.Errorf("it has executed %s, and the binary log of %s has %s at %s:%s", st.executed, c.source, theirs, file, at)
	}
	if st.applied != known {
		// What the server wrote itself as a primary is in its binary log and not in gtid_slave_pos.
		if err := l.exec(ctx, "SET GLOBAL gtid_slave_pos = "+quote(known)); err != nil {
			return "", err
		}
	}
	for _, s := range []string{"CHANGE MASTER TO MASTER_USE_GTID = slave_pos", l.dialect.start()} {
		if err := l.exec(ctx, s); err != nil {
			return "", err
		}
	}
	if err := l.waitThreads(ctx); err != nil {
		back := fmt.Sprintf("CHANGE MASTER TO MASTER_USE_GTID = no, MASTER_LOG_FILE = %s, MASTER_LOG_POS = %s", quote(file), at)
		return "", errors.Join(err, l.exec(ctx, l.dialect.stop("")), l.exec(ctx, back))
	}
	return known, nil
}

// waitReceived waits until everything that the stopped receiver has brought is applied.
func (l *line) waitReceived(ctx context.Context) error {
	for end := time.Now().Add(applyWait); ; pause(ctx, 5*time.Millisecond) {
		r, err := l.one(ctx, l.dialect.askReplica())
		switch {
		case err != nil:
			return err
		case r["relay_source_log_file"] == r["source_log_file"] && r["exec_source_log_pos"] == r["read_source_log_pos"]:
			return nil
		case r["replica_sql_running"] != "Yes":
			return fmt.Errorf("the applier has stopped: error %s: %s", r["last_sql_errno"], r["last_sql_error"])
		case time.Now().After(end):
			return fmt.Errorf("it has applied the source's log up to %s:%s and not to %s:%s within %v: wait until it has caught up",
				r["relay_source_log_file"], r["exec_source_log_pos"], r["source_log_file"], r["read_source_log_pos"], applyWait)
		}
	}
}
