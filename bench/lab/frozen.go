package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"
)

// Blow is what happens to the owner in [Lab.Strike].
type Blow string

// The blows. None leaves the owner's daemon able to do anything about its addresses.
const (
	BlowKill     Blow = "kill"      // SIGKILL for the daemon, which is started again later
	BlowStop     Blow = "stop"      // SIGSTOP for the daemon, SIGCONT later
	BlowStopBoth Blow = "stop-both" // the same for the daemon and the server
)

// Blows returns all blows.
func Blows() []Blow { return []Blow{BlowKill, BlowStop, BlowStopBoth} }

// StrikeOptions say what happens to the owner.
type StrikeOptions struct {
	Blow Blow
	// Nap is after what time the owner wakes up, whoever serves then; zero waits until another node serves.
	Nap time.Duration
	// Prober says who is asked, and how often.
	Prober ProberOptions
}

// Strike is what was seen of one blow.
type Strike struct {
	Blow     Blow
	Old, New string // who answered before and after; New is empty if nobody else did
	// Led is set if the old owner was the Raft leader too, so that there had to be an election first.
	Led bool
	// Zero is just before the blow, Struck when it has certainly taken effect, Woken just before the daemon was continued
	// or started again.
	Zero, Struck, Woken time.Time
	// LastAsked and LastAnswer belong to the last answer of the old owner before Woken; FirstAnswer is another node's first
	// after Zero.
	LastAsked, LastAnswer, FirstAnswer time.Time
	// Doubles are the times for which two nodes answered, until the cluster was well again.
	Doubles []DoubleAnswer
	// Claims are announcements of one node while another one answered.
	Claims []Announcement
	// Pause is the longest time in which the prober asked nobody.
	Pause time.Duration
}

// LastAfter returns how long after the blow the old owner's last answer came; not more than 0 if there was none.
func (s Strike) LastAfter() time.Duration { return s.LastAnswer.Sub(s.Zero) }

// ServedAfter returns how long after the blow another node's first answer came, 0 if none did.
func (s Strike) ServedAfter() time.Duration {
	if s.New == "" {
		return 0
	}
	return s.FirstAnswer.Sub(s.Zero)
}

// Silence returns how long nobody answered before another node did, 0 if none did.
func (s Strike) Silence() time.Duration {
	if s.New == "" {
		return 0
	}
	return s.FirstAnswer.Sub(s.LastAnswer)
}

// Double returns the longest time for which two nodes answered.
func (s Strike) Double() (most time.Duration) {
	for _, d := range s.Doubles {
		most = max(most, d.Duration())
	}
	return most
}

// Judge returns what was wrong, given the length of the lease: two nodes that answered, an announcement on old rights,
// or an answer to a question that was sent when the lease of any report sent before the blow was over.
func (s Strike) Judge(ttl time.Duration) error {
	var errs []error
	for _, d := range s.Doubles {
		errs = append(errs, errors.New(d.String()))
	}
	for _, f := range s.Claims {
		errs = append(errs, fmt.Errorf("%s announced the address %v after the %s, while another node answered", f.Node, f.Time.Sub(s.Zero), s.Blow))
	}
	if late := s.LastAsked.Sub(s.Struck); late > ttl {
		errs = append(errs, fmt.Errorf("%s answered a question sent %v after the %s, the lease is %v long", s.Old, late, s.Blow, ttl))
	}
	return errors.Join(errs...)
}

// afterglow is for how long the prober goes on before the old daemon wakes up and after the cluster is well again.
const afterglow = 200 * time.Millisecond

// Strike does to the owner what the options say, waits until another node answers, wakes the old owner up, and waits until
// all is well. All the time every node is asked whether it answers.
func (l *Lab) Strike(ctx context.Context, opts StrikeOptions) (Strike, error) {
	s := Strike{Blow: opts.Blow, Old: l.Holder(l.VIP())}
	if s.Old == "" {
		return s, errors.New("strike the owner: there is none")
	}
	if err := l.noteLeader(ctx, &s); err != nil {
		return s, err
	}
	p, err := l.StartProber(opts.Prober)
	if err != nil {
		return s, err
	}
	defer p.Stop()
	if err := l.strike(ctx, p, opts.Nap, &s); err != nil {
		return s, fmt.Errorf("%s of the owner %s: %w", s.Blow, s.Old, err)
	}
	return s, nil
}

func (l *Lab) strike(ctx context.Context, p *Prober, nap time.Duration, s *Strike) error {
	if err := p.WaitAnswers(ctx, s.Old, time.Now(), 30); err != nil {
		return err
	}
	// Anywhere between two renewals.
	if err := pause(ctx, rand.N(100*time.Millisecond)); err != nil {
		return err
	}
	old := l.Node(s.Old)
	s.Zero = time.Now()
	if err := old.suffer(ctx, s.Blow); err != nil {
		return err
	}
	s.Struck = time.Now()
	if nap == 0 {
		if err := p.waitAnother(ctx, s.Old, s.Zero); err != nil {
			return err
		}
		nap = afterglow
	}
	if err := pause(ctx, nap); err != nil {
		return err
	}
	s.Woken = time.Now()
	if err := old.recover(ctx, s.Blow); err != nil {
		return err
	}
	if err := l.WaitStable(ctx); err != nil {
		return err
	}
	if err := pause(ctx, afterglow); err != nil {
		return err
	}
	p.Stop()
	return l.sumUp(p, s)
}

// noteLeader finds out whether the owner leads. Leadership may change afterwards.
func (l *Lab) noteLeader(ctx context.Context, s *Strike) error {
	leader, err := l.leaderWhenAgreed(ctx)
	if err != nil {
		return fmt.Errorf("strike the owner: %w", err)
	}
	s.Led = leader == s.Old
	return nil
}

// leaderWhenAgreed waits for the end of an election that may be on.
func (l *Lab) leaderWhenAgreed(ctx context.Context) (leader string, err error) {
	var why error
	err = poll(ctx, 20*time.Millisecond, func() (bool, error) {
		leader, why = l.Leader(ctx)
		return why == nil, nil
	})
	if err != nil {
		return "", fmt.Errorf("find the leader: %w", errors.Join(err, why))
	}
	return leader, nil
}

// suffer deals the blow and returns when it has taken effect.
func (n *Node) suffer(ctx context.Context, blow Blow) error {
	switch blow {
	case BlowKill:
		return n.KillDaemon()
	case BlowStop:
		return n.stopped(ctx, n.SignalDaemon, n.Daemon())
	case BlowStopBoth:
		return errors.Join(n.stopped(ctx, n.SignalDaemon, n.Daemon()), n.stopped(ctx, n.SignalServer, n.Server()))
	}
	return fmt.Errorf("unknown blow %q: use one of %v", blow, Blows())
}

// stopped freezes a process and waits until all of it stands still.
func (n *Node) stopped(ctx context.Context, signal func(syscall.Signal) error, p *Process) error {
	if err := signal(syscall.SIGSTOP); err != nil {
		return err
	}
	return poll(ctx, time.Millisecond, p.Stopped)
}

// recover takes the blow back.
func (n *Node) recover(ctx context.Context, blow Blow) error {
	switch blow {
	case BlowKill:
		return n.StartDaemon()
	case BlowStopBoth:
		return errors.Join(n.SignalServer(syscall.SIGCONT), n.SignalDaemon(syscall.SIGCONT), n.WaitReplicating(ctx))
	default:
		return n.SignalDaemon(syscall.SIGCONT)
	}
}

// sumUp fills in what the observers saw.
func (l *Lab) sumUp(p *Prober, s *Strike) error {
	as, err := p.Answers()
	if err != nil {
		return err
	}
	s.Pause = p.Pause()
	s.Doubles = as.DoubleAnswers()
	first, _ := as.FirstBut(s.Old, s.Zero)
	s.New, s.FirstAnswer = first.Node, first.Received
	last, ok := as.Last(s.Old, time.Time{}, s.Woken)
	if !ok {
		return errors.New("it never answered")
	}
	s.LastAsked, s.LastAnswer = last.Sent, last.Received
	announced, err := l.Announced(p.Addr())
	s.Claims = as.FalseAnnouncements(announced)
	return err
}

// WaitAnswers waits until a node has answered n questions that were sent after a moment.
func (p *Prober) WaitAnswers(ctx context.Context, node string, from time.Time, n int) error {
	err := poll(ctx, 2*time.Millisecond, func() (bool, error) {
		count, err := p.count(func(a Answer) bool { return a.Node == node && a.Sent.After(from) })
		return count >= n, err
	})
	if err != nil {
		return fmt.Errorf("wait for %d answers of %s: %w", n, node, err)
	}
	return nil
}

// waitAnother waits until a node other than the named one has answered some questions sent after a moment.
func (p *Prober) waitAnother(ctx context.Context, node string, from time.Time) error {
	const some = 20
	err := poll(ctx, 2*time.Millisecond, func() (bool, error) {
		count, err := p.count(func(a Answer) bool { return a.Node != node && a.Sent.After(from) })
		return count >= some, err
	})
	if err != nil {
		return fmt.Errorf("wait for answers of another node: %w", err)
	}
	return nil
}

func (p *Prober) count(take func(Answer) bool) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.answers {
		if take(a) {
			n++
		}
	}
	return n, p.err
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
