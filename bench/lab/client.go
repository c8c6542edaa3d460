package lab

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"
)

// StartStream starts a client stream; there is at most one to each address and port. The first is the one that steps and faults
// are judged by.
func (l *Lab) StartStream(opts StreamOptions) (*Stream, error) {
	if !opts.Target.IsValid() {
		opts.Target = netip.AddrPortFrom(l.VIP(), ServerPort)
	}
	if opts.Interval <= 0 {
		opts.Interval = 2 * time.Millisecond
	}
	if opts.Timeout <= 0 {
		opts.Timeout = time.Second
	}
	l.streamMu.Lock()
	defer l.streamMu.Unlock()
	if slices.ContainsFunc(l.streams, func(s *Stream) bool { return s.opts.Target == opts.Target }) {
		return nil, fmt.Errorf("client stream to %v: one runs already", opts.Target)
	}
	identify := func(string) string { return "" }
	if l.opts.Server != nil {
		identify = l.opts.Server.Identify
	}
	s, err := newStream(l.client.NS, opts, identify)
	if err != nil {
		return nil, err
	}
	l.streams = append(l.streams, s)
	return s, nil
}

// Stream returns the first client stream, nil if none was started.
func (l *Lab) Stream() *Stream {
	l.streamMu.Lock()
	defer l.streamMu.Unlock()
	if len(l.streams) == 0 {
		return nil
	}
	return l.streams[0]
}

// Queries is a client that logs in and asks for @@server_id with a new connection each time.
type Queries struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	names  map[uint32]string

	mu       sync.Mutex
	attempts []Attempt
}

// StartQueries starts the second, slower client stream: a new connection with login and query every interval.
func (l *Lab) StartQueries(interval, timeout time.Duration) (*Queries, error) {
	db, err := l.client.DB(netip.AddrPortFrom(l.VIP(), ServerPort), timeout)
	if err != nil {
		return nil, err
	}
	db.SetMaxIdleConns(-1) // a new connection for each query
	ctx, cancel := context.WithCancel(context.Background())
	q := &Queries{cancel: cancel, names: map[uint32]string{}}
	for _, n := range l.Servers() {
		q.names[n.serverSpec().ID()] = n.Name
	}
	q.wg.Add(1)
	go func() {
		defer q.wg.Done()
		defer db.Close()
		q.loop(ctx, db, interval, timeout)
	}()
	l.streamMu.Lock()
	defer l.streamMu.Unlock()
	l.queries = q
	return q, nil
}

func (q *Queries) loop(ctx context.Context, db *sql.DB, interval, timeout time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	var flying sync.WaitGroup
	defer flying.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			flying.Add(1)
			go func() {
				defer flying.Done()
				q.ask(ctx, db, timeout)
			}()
		}
	}
}

func (q *Queries) ask(ctx context.Context, db *sql.DB, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	a := Attempt{Start: time.Now(), Result: Answered}
	var id uint32
	if err := db.QueryRowContext(ctx, "SELECT @@server_id").Scan(&id); err != nil {
		a.Result = queryResult(err)
	}
	a.End, a.Server = time.Now(), q.names[id]
	q.mu.Lock()
	defer q.mu.Unlock()
	q.attempts = append(q.attempts, a)
}

func queryResult(err error) Result {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return TimedOut
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refused
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return Unreachable
	default:
		return Reset
	}
}

// Stop ends the queries and waits for those on their way.
func (q *Queries) Stop() {
	q.cancel()
	q.wg.Wait()
}

// Attempts returns the queries so far.
func (q *Queries) Attempts() []Attempt {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.attempts)
}

// Stats sums up the queries from one moment to another, or to now if the second is zero.
func (q *Queries) Stats(from, to time.Time) Stats {
	if to.IsZero() {
		to = time.Now()
	}
	return Summarize(q.Attempts(), from, to)
}
