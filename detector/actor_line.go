package detector

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/gtid"
)

// slot holds a connection, for one act at a time.
type slot struct {
	token chan struct{}
	line  *line
}

func newSlot() *slot { return &slot{token: make(chan struct{}, 1)} }

func (s *slot) lock(ctx context.Context) error {
	select {
	case s.token <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *slot) tryLock() bool {
	select {
	case s.token <- struct{}{}:
		return true
	default:
		return false
	}
}

func (s *slot) unlock() { <-s.token }

func (s *slot) drop() {
	if s.line != nil {
		s.line.close()
		s.line = nil
	}
}

// line is one connection with its deadlines.
type line struct {
	as      *Account
	conn    driver.Conn
	raw     net.Conn
	dialect dialect
	thread  string // the server's number of this session
}

// dial connects, logs in and finds out whom it talks to.
func (as *Account) dial(ctx context.Context) (*line, error) {
	l, err := as.tryDial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to the server at %s as %s: %w", as.Address, as.User, explain(err))
	}
	return l, nil
}

func (as *Account) tryDial(ctx context.Context) (*line, error) {
	password := ""
	if as.Password != nil {
		var err error
		if password, err = as.Password(); err != nil {
			return nil, err
		}
	}
	l := &line{as: as}
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd = as.User, password
	cfg.Net, cfg.Addr = as.network, as.address
	cfg.TLS, cfg.AllowFallbackToPlaintext = as.TLS, false
	cfg.CheckConnLiveness = false
	cfg.Logger = &mysql.NopLogger{}
	cfg.ConnectionAttributes = "program_name:remora"
	cfg.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, network, address)
		l.raw = c
		return c, err
	}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, statementWait)
	defer cancel()
	if l.conn, err = connector.Connect(ctx); err != nil {
		return nil, err
	}
	if err := l.begin(ctx); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// begin makes the session ours and recognises the server.
func (l *line) begin(ctx context.Context) (err error) {
	if _, err = l.query(ctx, statementWait, settings+", wait_timeout = 3600"); err != nil {
		return err
	}
	l.dialect, err = recognise(func(s string) ([]row, error) { return l.query(ctx, statementWait, s) })
	if err != nil {
		return err
	}
	r, err := l.one(ctx, "SELECT CONNECTION_ID() AS id")
	l.thread = r["id"]
	return err
}

func (l *line) close() {
	l.raw.SetDeadline(time.Now().Add(quitWait))
	l.conn.Close()
	l.raw.Close()
}

// query runs a statement, for limit at the most, and no longer than ctx allows.
func (l *line) query(ctx context.Context, limit time.Duration, statement string) ([]row, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%s: not begun: %w", short(statement), err)
	}
	deadline := time.Now().Add(limit)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	l.raw.SetDeadline(deadline)
	defer context.AfterFunc(ctx, func() { l.raw.SetDeadline(time.Unix(1, 0)) })()
	rows, err := queryRows(l.conn, statement)
	if err == nil {
		return rows, nil
	}
	var answer *mysql.MySQLError
	switch {
	case errors.As(err, &answer):
		err = explain(err)
	case ctx.Err() != nil:
		err = fmt.Errorf("given up: %w", ctx.Err())
	case !time.Now().Before(deadline):
		err = fmt.Errorf("%w: no answer within %v: the server hangs, or waits for a lock", os.ErrDeadlineExceeded, limit)
	default:
		err = fmt.Errorf("the connection broke off: %w", err)
	}
	return nil, fmt.Errorf("%s: %w", short(statement), err)
}

// short is a statement for people: without what a CHANGE MASTER says of the account, and without a long set.
func short(statement string) string {
	if head, _, found := strings.Cut(statement, " TO MASTER_"); found {
		return head
	}
	if head, _, found := strings.Cut(statement, " TO SOURCE_"); found {
		return head
	}
	if len(statement) > 120 {
		return statement[:120] + "..."
	}
	return statement
}

func (l *line) exec(ctx context.Context, statement string) error {
	limit := statementWait
	if strings.HasPrefix(statement, "STOP ") || strings.HasPrefix(statement, "RESET ") {
		limit = stopWait
	}
	_, err := l.query(ctx, limit, statement)
	return err
}

func (l *line) one(ctx context.Context, statement string) (row, error) {
	rows, err := l.query(ctx, statementWait, statement)
	if err != nil {
		return nil, err
	}
	if len(rows) != 1 {
		return nil, fmt.Errorf("%s: %d rows where one was expected", short(statement), len(rows))
	}
	return rows[0], nil
}

// state is what a server is, and how far it has come.
type state struct {
	writable core.Tri
	executed gtid.Set
	applied  string // MariaDB's gtid_slave_pos
}

func (l *line) state(ctx context.Context) (state, error) {
	r, err := l.one(ctx, l.dialect.askState())
	if err != nil {
		return state{}, err
	}
	executed, err := gtid.Parse(l.dialect.flavour(), r["executed"])
	return state{writable: writable(r), executed: executed, applied: r["applied"]}, err
}

// channel is one source that the server replicates from.
type channel struct {
	name, source       string
	receiving, applies bool
	failure            string // the last error of either thread
	byGTID             bool
	received           string
}

// channels reads the replica status. A server that replicates from nobody has none.
func (l *line) channels(ctx context.Context) ([]channel, error) {
	rows, err := l.query(ctx, statementWait, l.dialect.askReplica())
	if err != nil {
		return nil, err
	}
	var out []channel
	for _, r := range rows {
		c := channel{name: r["channel_name"], receiving: r["replica_io_running"] != "No", applies: r["replica_sql_running"] == "Yes",
			failure: strings.TrimSpace(r["last_io_error"] + " " + r["last_sql_error"]), received: r["retrieved_gtid_set"],
			byGTID: r["auto_position"] == "1"}
		if l.dialect.mariadb {
			c.name, c.received = r["connection_name"], r["gtid_io_pos"]
			c.byGTID = r["using_gtid"] != "No"
		}
		if strings.HasPrefix(c.name, "group_replication_") {
			return nil, errors.New("the server is a member of Group Replication, which chooses its primary itself: use policy \"follow\"")
		}
		if r["source_host"] == "" {
			continue
		}
		c.source = net.JoinHostPort(r["source_host"], r["source_port"])
		out = append(out, c)
	}
	return out, nil
}

// stopReceivers stops them all. MariaDB throws the relay log away when replication starts with both threads stopped, so
// there an applier that stands still without an error is started first.
func (l *line) stopReceivers(ctx context.Context, channels []channel) error {
	for _, c := range channels {
		if !c.receiving {
			continue
		}
		if l.dialect.mariadb && !c.applies && c.failure == "" {
			if err := l.exec(ctx, l.dialect.startApplier(c.name)); err != nil {
				return err
			}
		}
		if l.dialect.has(farewell) {
			_ = l.exec(ctx, l.dialect.shortenFarewell()) // without it the stop takes longer, and that is all
		}
		if err := l.exec(ctx, l.dialect.stopReceiver(c.name)); err != nil {
			return err
		}
	}
	return nil
}

// received is the union of what the channels have received.
func (l *line) received(channels []channel) (gtid.Set, error) {
	var all gtid.Set
	for _, c := range channels {
		if !c.byGTID {
			return gtid.Set{}, fmt.Errorf("the server replicates from %s without GTID, so what it has received cannot be named: "+
				"let it use MASTER_USE_GTID=slave_pos (MariaDB) or SOURCE_AUTO_POSITION=1 (MySQL)", c.source)
		}
		s, err := gtid.Parse(l.dialect.flavour(), c.received)
		if err != nil {
			return gtid.Set{}, err
		}
		all = all.Union(s)
	}
	return all, nil
}

// waitApplied waits until the server has executed a set. It gives up early when the applier can not get there.
func (l *line) waitApplied(ctx context.Context, want gtid.Set, within time.Duration) error {
	end := time.Now().Add(within)
	for {
		st, err := l.state(ctx)
		if err != nil {
			return err
		}
		if st.executed.Contains(want) {
			return nil
		}
		missing := want.Subtract(st.executed)
		rest := time.Until(end)
		if rest <= 0 {
			return fmt.Errorf("wait until everything is applied: after %v %d transactions are missing: %s%s", within, missing.Count(),
				short(missing.String()), l.heldUp(ctx))
		}
		if err := l.applying(ctx, missing); err != nil {
			return err
		}
		slice := min(rest, waitSlice)
		if _, err := l.query(ctx, slice+statementWait, l.dialect.waitApplied(want.String(), slice)); err != nil {
			return fmt.Errorf("wait for %d missing transactions: %w", missing.Count(), err)
		}
	}
}

// heldUp says which lock the applier waits for, if it waits for one, and nothing otherwise.
func (l *line) heldUp(ctx context.Context) string {
	rows, err := l.query(ctx, statementWait, askHeldUp)
	if err != nil || len(rows) == 0 {
		return ""
	}
	return fmt.Sprintf("; the applier says %q: look for a backup that holds FLUSH TABLES WITH READ LOCK there, or for LOCK TABLES", rows[0]["state"])
}

// applying makes sure that there is an applier which can bring what is missing.
func (l *line) applying(ctx context.Context, missing gtid.Set) error {
	channels, err := l.channels(ctx)
	if err != nil {
		return err
	}
	if len(channels) == 0 {
		return fmt.Errorf("%d transactions are missing and the server replicates from nobody: %s", missing.Count(), short(missing.String()))
	}
	for _, c := range channels {
		switch {
		case c.applies:
		case c.failure != "":
			return fmt.Errorf("the applier has stopped with %d transactions missing: %s", missing.Count(), c.failure)
		case l.dialect.mariadb && !c.receiving:
			return fmt.Errorf("receiver and applier are both stopped with %d transactions missing, and MariaDB throws away its relay log "+
				"when it starts again: read them from the files with mariadb-binlog, or START SLAVE while the source lives", missing.Count())
		default:
			if err := l.exec(ctx, l.dialect.startApplier(c.name)); err != nil {
				return err
			}
		}
	}
	return nil
}
