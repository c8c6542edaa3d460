package lab

import (
	"context"
	"database/sql"
	"net/netip"
	"sync"
	"time"
)

// Regulars are clients that keep their connections, as programs with a connection pool do: each logs in once, asks at a
// fixed rate for @@server_id, and when its connection has gone, or has been silent for the time limit, opens another at
// once and goes on until it is answered.
type Regulars struct {
	interval, limit time.Duration
	cancel          context.CancelFunc
	wg              sync.WaitGroup

	mu      sync.Mutex
	answers [][]exchange // of each client, in order
	open    []time.Time  // when the question was first asked that a client has no answer to yet
}

// exchange is a question with its answer.
type exchange struct{ asked, answered time.Time }

// StartRegulars starts n clients of the first VIP that keep their connections and ask every interval. A connection on
// which no answer, or no handshake, comes within limit is given up.
func (l *Lab) StartRegulars(n int, interval, limit time.Duration) (*Regulars, error) {
	ctx, cancel := context.WithCancel(context.Background())
	r := &Regulars{interval: interval, limit: limit, cancel: cancel, answers: make([][]exchange, n), open: make([]time.Time, n)}
	for i := range n {
		db, err := l.client.DB(netip.AddrPortFrom(l.VIP(), ServerPort), limit)
		if err != nil {
			r.Stop()
			return nil, err
		}
		db.SetMaxOpenConns(1)
		r.wg.Go(func() {
			defer db.Close()
			r.ask(ctx, i, db)
		})
	}
	return r, nil
}

// ask is the life of client i.
func (r *Regulars) ask(ctx context.Context, i int, db *sql.DB) {
	// Not all at the same moment.
	for next := time.Now().Add(r.interval * time.Duration(i) / time.Duration(len(r.open))); ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(next)):
		}
		asked := time.Now()
		r.note(i, asked, time.Time{})
		if !r.untilAnswered(ctx, db) {
			return
		}
		answered := time.Now()
		r.note(i, asked, answered)
		if next = next.Add(r.interval); next.Before(answered) {
			next = answered.Add(r.interval)
		}
	}
}

// untilAnswered asks until there is an answer, and reports whether there was one before the end of ctx.
func (r *Regulars) untilAnswered(ctx context.Context, db *sql.DB) bool {
	for {
		limited, cancel := context.WithTimeout(ctx, r.limit)
		var id uint32
		err := db.QueryRowContext(limited, "SELECT @@server_id").Scan(&id)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err == nil
		}
		const rest = time.Millisecond // a refusal comes at once
		time.Sleep(rest)
	}
}

func (r *Regulars) note(i int, asked, answered time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if answered.IsZero() {
		r.open[i] = asked
		return
	}
	r.open[i] = time.Time{}
	r.answers[i] = append(r.answers[i], exchange{asked, answered})
}

// WaitAnswered waits until every client has an answer to a question that it put after from.
func (r *Regulars) WaitAnswered(ctx context.Context, from time.Time) error {
	return poll(ctx, 2*time.Millisecond, func() (bool, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, es := range r.answers {
			if len(es) == 0 || !es[len(es)-1].asked.After(from) {
				return false, nil
			}
		}
		return true, nil
	})
}

// Gap returns the longest time between two answers that one of the clients got, and Wait the longest time from a
// question to its answer, between two moments. What is still open at the end counts until then.
func (r *Regulars) Gap(from, to time.Time) time.Duration {
	gap, _ := r.longest(from, to)
	return gap
}

// Wait returns the longest time from a question to its answer; see Gap.
func (r *Regulars) Wait(from, to time.Time) time.Duration {
	_, wait := r.longest(from, to)
	return wait
}

func (r *Regulars) longest(from, to time.Time) (gap, wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, es := range r.answers {
		last := from
		for _, e := range es {
			if e.answered.Before(from) {
				continue
			}
			if e.asked.After(to) {
				break
			}
			gap, wait = max(gap, e.answered.Sub(last)), max(wait, e.answered.Sub(e.asked))
			last = e.answered
		}
		if at := r.open[i]; !at.IsZero() && at.Before(to) {
			gap, wait = max(gap, to.Sub(last)), max(wait, to.Sub(at))
		}
	}
	return gap, wait
}

// Stop ends the clients.
func (r *Regulars) Stop() {
	r.cancel()
	r.wg.Wait()
}
