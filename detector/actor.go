package detector

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/gtid"
)

// ReplicationTLS says how a replica protects its connection to the source. The paths are read by the server, not by us.
type ReplicationTLS struct {
	Enabled bool
	// CA is the file of the authority that has signed the source's certificate; empty trusts any.
	CA string
	// VerifyName refuses a source whose certificate does not bear the address.
	VerifyName bool
}

// Account says which server is acted on, and as whom.
type Account struct {
	// Address, User, Password and TLS are as in Config. The account needs what Grants lists for policy promote.
	Address  string
	User     string
	Password func() (string, error)
	TLS      *tls.Config
	// ReplicationUser and ReplicationPassword are what this server logs in with at its source.
	ReplicationUser     string
	ReplicationPassword func() (string, error)
	ReplicationTLS      ReplicationTLS

	network, address string // what Address says
}

// ActorConfig is what an Actor is made from.
type ActorConfig struct {
	Account
	// Clock reads the lease clock, which NotAfter of a PromoteServer belongs to.
	Clock  func() core.Instant
	Logger *slog.Logger
}

// Limits on single statements, beside what the caller's context and the action itself allow.
const (
	// statementWait is for statements that read, set or stop something; it is longer than lockWait.
	statementWait = 3 * time.Second
	// stopWait is for STOP REPLICA, which waits for the transaction that the applier is in.
	stopWait = 30 * time.Second
	// waitSlice is how long one wait for transactions lasts before the applier is looked at again.
	waitSlice = time.Second
	// warmEvery is how often the connections are tried that are held open for acts to come.
	warmEvery = 2 * time.Second
	// threadsWait is how long the threads may take to start after a FollowServer.
	threadsWait = 10 * time.Second
)

// Actor acts on the local server for core/agent. It has two connections of its own, opened ahead by Run and kept warm:
// one for Demote, which so waits for no other act, and one for all others, which wait for one another. Without Run each
// act connects when it must. What each act does, and with which statements, is in docs/mysql.md.
//
// All methods may be called from any goroutine. They return when the work is done, when it has failed, or soon after ctx
// has ended. Each error names the statement and what can be done about it. After an error the state of the server is
// what it is; each act can be repeated.
type Actor struct {
	as           atomic.Pointer[Account] // never changed; Use puts another one in its place
	clock        func() core.Instant
	log          *slog.Logger
	work, giveUp *slot
	lookup       func(ctx context.Context, network, host string) ([]netip.Addr, error)

	mu        sync.Mutex
	promotion *promotion // under way
	demotes   int        // calls under way
}

// promotion is a Promote under way.
type promotion struct {
	cancel context.CancelFunc
	done   chan struct{}
	thread string // the server's number of its session, empty before it is connected
}

// NewActor checks the configuration and returns an Actor that has connected to nothing yet.
func NewActor(cfg ActorConfig) (*Actor, error) {
	if cfg.Clock == nil {
		return nil, fmt.Errorf("%w: Clock must be set", ErrConfig)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	a := &Actor{clock: cfg.Clock, log: cfg.Logger, work: newSlot(), giveUp: newSlot(), lookup: net.DefaultResolver.LookupNetIP}
	if err := a.Use(cfg.Account); err != nil {
		return nil, err
	}
	return a, nil
}

// Use gives another account to the acts that begin from now on; those that are under way end with the one that they began
// with. It must be of the same server if that may have been promoted, or else the next Demote would leave it writable. On an
// error, which is about what as says, nothing is changed.
func (a *Actor) Use(as Account) error {
	var err error
	as.network, as.address, err = splitAddress(as.Address)
	switch {
	case err != nil:
		return fmt.Errorf("%w: address %q: %w", ErrConfig, as.Address, err)
	case as.User == "":
		return fmt.Errorf("%w: user is empty: name the account that Remora logs in with", ErrConfig)
	}
	a.as.Store(&as)
	return nil
}

// Run keeps the two connections open and warm until ctx ends; then it closes them and returns nil.
func (a *Actor) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, s := range []*slot{a.work, a.giveUp} {
		wg.Go(func() { a.warm(ctx, s) })
	}
	wg.Wait()
	return nil
}

func (a *Actor) warm(ctx context.Context, s *slot) {
	tick := time.NewTicker(warmEvery)
	defer tick.Stop()
	for {
		if s.tryLock() {
			if _, err := a.connected(ctx, s); err != nil && ctx.Err() == nil {
				a.log.Debug("no connection for acts on the server", "error", err)
			}
			if ctx.Err() != nil {
				s.drop()
			}
			s.unlock()
		}
		select {
		case <-ctx.Done():
			if s.lock(context.Background()) == nil {
				s.drop()
				s.unlock()
			}
			return
		case <-tick.C:
		}
	}
}

// with gives fn the connection of a slot for itself. After an error the next act gets another one: MySQL gives new
// privileges to new connections only, and an answer may still be under way on the old one.
func (a *Actor) with(ctx context.Context, s *slot, fn func(*line) error) error {
	if err := s.lock(ctx); err != nil {
		return fmt.Errorf("wait for the act before this one: %w", err)
	}
	defer s.unlock()
	l, err := a.connected(ctx, s)
	if err != nil {
		return err
	}
	if err := fn(l); err != nil {
		s.drop()
		return err
	}
	return nil
}

// connected returns the slot's connection, and makes one if there is none, if it is another account's or if it does not answer.
func (a *Actor) connected(ctx context.Context, s *slot) (*line, error) {
	as := a.as.Load()
	if s.line != nil {
		if s.line.as == as {
			if _, err := s.line.query(ctx, statementWait, settings+", wait_timeout = 3600"); err == nil {
				return s.line, nil
			}
		}
		s.drop()
	}
	l, err := as.dial(ctx)
	if err != nil {
		return nil, err
	}
	s.line = l
	return l, nil
}

// Freeze stops the receiver and reports what has been executed and received.
func (a *Actor) Freeze(ctx context.Context, f core.FreezeServer) core.ServerFrozen {
	out := core.ServerFrozen{Group: f.Group, Epoch: f.Epoch, Round: f.Round}
	out.Err = message(a.with(ctx, a.work, func(l *line) error {
		channels, err := l.channels(ctx)
		if err != nil {
			return err
		}
		if err := l.stopReceivers(ctx, channels); err != nil {
			return err
		}
		// Read again: what came in before the end counts.
		if channels, err = l.channels(ctx); err != nil {
			return err
		}
		for _, c := range channels {
			if c.receiving {
				return fmt.Errorf("the receiver of channel %q runs although it was stopped: somebody else starts it", c.name)
			}
		}
		received, err := l.received(channels)
		if err != nil {
			return err
		}
		st, err := l.state(ctx)
		out.Executed, out.Received = st.executed.String(), received.String()
		return err
	}))
	return out
}

// CatchUp waits until the server has applied a set.
func (a *Actor) CatchUp(ctx context.Context, c core.CatchUpServer) core.ServerCaughtUp {
	out := core.ServerCaughtUp{Group: c.Group, Epoch: c.Epoch, Move: c.Move}
	out.Err = message(a.with(ctx, a.work, func(l *line) error {
		want, err := gtid.Parse(l.dialect.flavour(), c.Executed)
		if err != nil {
			return err
		}
		return l.waitApplied(ctx, want, c.Within)
	}))
	return out
}

// message is the text of an error, empty if there is none.
func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// explain adds to a server's error what the operator can do about it.
func explain(err error) error {
	var answer *mysql.MySQLError
	if !errors.As(err, &answer) {
		return err
	}
	advice, ok := refusal(answer.Number)
	switch {
	case ok:
	case answer.Number == errPrivilege:
		advice = "grant what 'remora mysql grants --policy promote' prints"
	case answer.Number == errLockWait:
		advice = "a lock is held: look for LOCK TABLES, a backup with FLUSH TABLES WITH READ LOCK, or a commit that waits for its semi-sync acknowledgement"
	case answer.Number == errReadOnly:
		advice = "the server is read-only"
	default:
		return err
	}
	return fmt.Errorf("%w: %s", err, advice)
}

// hide takes a secret out of an error's text.
func hide(err error, secret string) error {
	if err == nil || secret == "" || !strings.Contains(err.Error(), secret) {
		return err
	}
	return errors.New(strings.ReplaceAll(err.Error(), secret, "(password)"))
}
