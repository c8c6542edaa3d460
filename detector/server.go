package detector

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/remora-ha/remora/core"
)

// statusEvery is how often a probe also asks for what changes slowly or costs more: position and replica status.
const statusEvery = time.Second

// statusHold is how long the replica status is left alone after it was refused, or not answered in time: on some servers
// it waits for a STOP REPLICA that itself waits for a long transaction, and each attempt costs them a thread as long.
const statusHold = 30 * time.Second

// quitWait is how long the goodbye to the server may take.
const quitWait = 20 * time.Millisecond

// facts is what a server says of itself.
type facts struct {
	writable    core.Tri
	source      string
	replicating core.Tri
	lag         time.Duration
	mhaWatches  core.Tri
	mhaActs     core.Tri
	semiSync    core.SemiSync
	gtid        string
	executed    string
	version     string
	listens     []netip.Addr
}

// mysqlServer is the server at the other end of the MySQL protocol. Only abort may be called from other goroutines.
type mysqlServer struct {
	ctx    context.Context
	d      *Detector
	procs  *processes
	disks  disks
	tell   func(hint)
	sess   *session
	facts  facts
	alarm  string         // of the replica status, empty if there is none
	lacks  string         // privileges that are missing, as an alarm
	starts string         // that it starts writable, as an alarm
	gtid   bool           // it has been seen as a MariaDB replica by GTID
	hold   time.Time      // until when the replica status is left alone
	wg     sync.WaitGroup // the watches of the links

	mu     sync.Mutex
	aborts int                // calls of abort minus those of resume
	cancel context.CancelFunc // of the dial and login under way
	link   *link              // of the connection that exists or is being made
}

func newServer(ctx context.Context, d *Detector, procs *processes, tell func(hint)) *mysqlServer {
	return &mysqlServer{ctx: ctx, d: d, procs: procs, tell: tell, facts: facts{lag: unknownLag}}
}

// close says goodbye to the server, for which it waits but shortly. No probe may be under way.
func (s *mysqlServer) close() {
	if s.sess != nil {
		s.quit()
	}
	s.wg.Wait()
}

// quit ends the connection as the protocol wants it.
func (s *mysqlServer) quit() {
	s.sess.link.SetDeadline(time.Now().Add(quitWait))
	s.sess.conn.Close()
	s.drop()
}

func (s *mysqlServer) abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aborts++
	if s.cancel != nil {
		s.cancel()
	}
	if s.link != nil {
		s.link.Close()
	}
}

func (s *mysqlServer) resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aborts--
}

// probe asks the server once. If the connection was lost it makes a new one, so a call after a loss is the dial that
// decides. The flags of the process are looked at before, and again if there was no answer.
func (s *mysqlServer) probe(timeout time.Duration) report {
	if reason := s.procs.dying(); reason != "" {
		return report{finding: dead, reason: reason}
	}
	r := s.attempt(timeout)
	if r.finding == silent {
		if reason := s.procs.dying(); reason != "" {
			r.finding, r.reason, r.lost = dead, reason, false
		}
	}
	return r
}

func (s *mysqlServer) attempt(timeout time.Duration) report {
	switch {
	case s.sess == nil:
	case s.sess.link.ended():
		s.drop()
	case s.sess.denied && time.Now().After(s.hold), s.lacks != "" && time.Since(s.sess.began) > statusHold:
		s.quit()
	}
	if s.sess == nil {
		if r, ok := s.open(timeout); !ok {
			return r
		}
	}
	return s.ask(timeout)
}

// open dials and logs in. The server has timeout until it greets, and for each answer after that.
func (s *mysqlServer) open(timeout time.Duration) (r report, ok bool) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	s.mu.Lock()
	s.cancel, s.link = cancel, nil
	if s.aborts > 0 {
		cancel()
	}
	s.mu.Unlock()
	deadline := time.Now().Add(timeout)
	conn, secretErr, err := s.login(ctx, deadline, timeout)
	link := s.link
	if link != nil && link.greeted() {
		s.procs.follow(link.peer())
	}
	if err != nil {
		var below error
		if link != nil {
			below = link.failure()
		}
		r = classify(err, below, timeout)
		r.late = time.Since(deadline)
		if link != nil {
			r.late, r.again = link.overrun()
			link.Close()
		}
		if r.finding == dead {
			if text := s.procs.starting(time.Now()); text != "" {
				r.alarms = []string{text}
			}
		}
		if r.refused && secretErr != nil {
			r.alarms = []string{fmt.Sprintf("cannot read the password: %v", secretErr)}
		}
		return r, false
	}
	s.sess = &session{conn: conn, link: link, began: time.Now()}
	return report{}, true
}

// login makes a connection through the driver. Without a password it tries all the same: the refusal tells a living
// server from a dead one.
func (s *mysqlServer) login(ctx context.Context, deadline time.Time, patience time.Duration) (conn driver.Conn, secretErr, err error) {
	password := ""
	if s.d.cfg.Password != nil {
		password, secretErr = s.d.cfg.Password()
	}
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd = s.d.cfg.User, password
	cfg.Net, cfg.Addr = s.d.network, s.d.address
	cfg.TLS, cfg.AllowFallbackToPlaintext = s.d.cfg.TLS, false
	cfg.CheckConnLiveness = false // the link is watched instead
	cfg.Logger = &mysql.NopLogger{}
	cfg.ConnectionAttributes = "program_name:remora"
	cfg.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		return s.dial(ctx, network, address, deadline, patience)
	}
	c, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, secretErr, err
	}
	conn, err = c.Connect(ctx)
	return conn, secretErr, err
}

// dial connects. The deadline is that of the socket and not of ctx, which would close it and so hide that it was late.
func (s *mysqlServer) dial(ctx context.Context, network, address string, deadline time.Time, patience time.Duration) (net.Conn, error) {
	dialer := net.Dialer{Deadline: deadline}
	c, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	l, err := newLink(c, s.d.cfg.Alarms, s.excuse, &s.wg, func() { s.tell(hint{}) })
	if err != nil {
		c.Close()
		return nil, err
	}
	l.allow(deadline, patience)
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		l.Close()
		return nil, ctx.Err()
	}
	s.link = l
	return l, nil
}

// excuse says why a server that has not answered in time has it once more. late is how late the alarm of that time was.
func (s *mysqlServer) excuse(late time.Duration) string {
	switch {
	case late > tolerance(s.d.cfg.Timing):
		return fmt.Sprintf("our own loop was %v late", late.Round(time.Millisecond))
	case s.procs.starved():
		return "the server waited for a processor"
	}
	return ""
}

// ask sends the probe on the open connection.
func (s *mysqlServer) ask(timeout time.Duration) report {
	link := s.sess.link
	link.allow(time.Now().Add(timeout), timeout)
	if err := s.refresh(timeout); err != nil {
		r := classify(err, link.failure(), timeout)
		r.late, r.again = link.overrun()
		r.lost = link.proven.Load() && r.broken
		s.drop()
		return r
	}
	link.SetDeadline(time.Time{})
	link.proven.Store(true)
	if s.sess.spoiled {
		s.drop()
	}
	r := report{finding: answered, reason: "answers queries", facts: s.facts}
	for _, alarm := range []string{s.disks.told(), s.alarm, s.lacks, s.starts} {
		if alarm != "" {
			r.alarms = append(r.alarms, alarm)
		}
	}
	return r
}

// drop ends the connection without waiting for anything.
func (s *mysqlServer) drop() {
	s.sess.link.Close()
	s.sess.conn.Close()
	s.sess = nil
}

// refresh asks for the facts: the dialect first if it is not known, the slow ones when they are due.
func (s *mysqlServer) refresh(timeout time.Duration) error {
	x := s.sess
	if x.dialect.vars == nil {
		if err := x.recognise(); err != nil {
			return err
		}
		s.facts.version = x.dialect.vars["version"]
		s.facts.listens = listens(x.dialect.vars, listeners)
		s.procs.socket(x.dialect.vars["socket"])
		if err := s.privileges(); err != nil {
			return err
		}
		if err := s.startMode(); err != nil {
			return err
		}
		if err := x.findLocks(); err != nil {
			return err
		}
	}
	now := time.Now()
	due := now.Sub(x.statusAt) >= statusEvery
	rows, err := x.query(x.dialect.askFacts(due))
	if err != nil {
		return err
	}
	if len(rows) != 1 {
		return fmt.Errorf("%d rows where one was expected", len(rows))
	}
	if w := writable(rows[0]); !due && w != s.facts.writable {
		// The set that goes with the new mode is wanted at once, and read together with it.
		if rows, err = x.query(x.dialect.askFacts(true)); err != nil {
			return err
		}
		due = true
	}
	s.facts.writable = writable(rows[0])
	if !due {
		return nil
	}
	x.statusAt = now
	s.disks.look(s.procs.pid(), x.dialect.written())
	s.facts.gtid, s.facts.executed = rows[0]["gtid"], rows[0]["executed"]
	s.facts.mhaWatches, s.facts.mhaActs = x.dialect.heldLocks(rows[0])
	s.facts.semiSync = core.SemiSync{}
	if now.Before(s.hold) {
		return nil
	}
	// The server has answered the probe: what follows has a deadline of its own, and to miss it is no sign of death.
	x.link.allow(time.Now().Add(timeout), timeout)
	if err := s.replica(now); err != nil || s.sess.spoiled || s.facts.writable != core.Yes {
		return err
	}
	s.facts.semiSync, err = s.sess.semiSync()
	return err
}

// replica reads the replica status. If that is not possible it is unknown, with an alarm.
func (s *mysqlServer) replica(now time.Time) error {
	d := s.sess.dialect
	rows, err := s.sess.query(d.askReplica())
	var answer *mysql.MySQLError
	switch {
	case err == nil:
		s.alarm = ""
		s.facts.source, s.facts.replicating, s.facts.lag = replication(rows)
		if position, by := usesGTID(rows); by {
			s.gtid = true
		} else if position && s.gtid {
			s.alarm = byPosition
		}
		return nil
	case errors.As(err, &answer) && answer.Number == errPrivilege:
		s.alarm = fmt.Sprintf("the replica status cannot be seen: GRANT %s ON *.* to the account", d.replicaPrivilege())
		s.hold, s.sess.denied = now.Add(statusHold), true
	case errors.Is(s.sess.link.failure(), os.ErrDeadlineExceeded):
		s.alarm = fmt.Sprintf("%s is not answered in time: look for a STOP REPLICA that waits; asked again every %v", d.askReplica(), statusHold)
		s.hold, s.sess.spoiled = now.Add(statusHold), true
	default:
		return err
	}
	s.facts.replicating, s.facts.lag = core.Unknown, unknownLag
	return nil
}
