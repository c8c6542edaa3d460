package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"time"
)

// ErrUnreachable means that no daemon answered.
var ErrUnreachable = errors.New("the daemon can not be reached")

// Client asks a daemon at the other end of a stream. It is a Backend. Every request opens a stream of its own and ends
// with its context, after 10 seconds if that has no deadline.
type Client struct {
	dial func(context.Context) (net.Conn, error)
}

// NewClient returns a client that opens streams with dial.
func NewClient(dial func(context.Context) (net.Conn, error)) *Client { return &Client{dial: dial} }

// Local returns a client for the daemon behind a unix socket.
func Local(path string) *Client {
	return NewClient(func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "unix", path)
		switch {
		case err == nil:
			return c, nil
		case errors.Is(err, fs.ErrPermission):
			return nil, fmt.Errorf("%w: no permission for socket %s: run as root, or as a member of the socket's group", ErrUnreachable, path)
		default:
			return nil, fmt.Errorf("%w: nobody answers on socket %s (%v): is it running ('systemctl status remora')? Another socket is named with --socket or REMORA_SOCKET",
				ErrUnreachable, path, reason(err))
		}
	})
}

// reason strips from a dial error what the message says already.
func reason(err error) error {
	var oe *net.OpError
	if errors.As(err, &oe) {
		return oe.Err
	}
	return err
}

// Status asks for the cluster's status.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return ask[Status](ctx, c, opStatus, nil)
}

// History asks for the newest changes of ownership.
func (c *Client) History(ctx context.Context, req HistoryRequest) ([]HistoryEntry, error) {
	return ask[[]HistoryEntry](ctx, c, opHistory, req)
}

// Trace asks for the pieces of the last takeovers.
func (c *Client) Trace(ctx context.Context, req TraceRequest) (TraceResult, error) {
	return ask[TraceResult](ctx, c, opTrace, req)
}

// Switchover asks to move a group.
func (c *Client) Switchover(ctx context.Context, req SwitchoverRequest) (SwitchoverResult, error) {
	return ask[SwitchoverResult](ctx, c, opSwitchover, req)
}

// Pause asks to freeze or thaw.
func (c *Client) Pause(ctx context.Context, req PauseRequest) error {
	_, err := ask[struct{}](ctx, c, opPause, req)
	return err
}

func ask[T any](ctx context.Context, c *Client, op string, args any) (T, error) {
	var result T
	ctx, cancel := withDefault(ctx)
	defer cancel()
	req := request{Version: protocol, Op: op, TimeoutMS: patience(ctx).Milliseconds(), Stages: StagesOf(ctx) != nil}
	if args != nil {
		var err error
		if req.Args, err = json.Marshal(args); err != nil {
			return result, fmt.Errorf("encode a request for %s: %w", op, err)
		}
	}
	rep, err := c.roundTrip(ctx, req)
	switch {
	case err != nil:
		return result, err
	case rep.Error != nil:
		return result, rep.Error
	}
	if err := json.Unmarshal(rep.Result, &result); err != nil {
		return result, fmt.Errorf("the daemon's answer to %s is not understood: %w: use the remora binary that the daemon runs", op, err)
	}
	return result, nil
}

func withDefault(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, 10*time.Second)
}

// patience is how long the other end may take: a little less than we have, so that its word on what became of the
// operation arrives in time.
func patience(ctx context.Context) time.Duration {
	deadline, _ := ctx.Deadline()
	left := time.Until(deadline)
	return max(left-min(left/10, 500*time.Millisecond), time.Millisecond)
}

func (c *Client) roundTrip(ctx context.Context, req request) (reply, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return reply{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	var rep reply
	if err := writeLine(conn, req); err != nil {
		return rep, ended(ctx, req.Op, err)
	}
	r, tell := bufio.NewReader(conn), StagesOf(ctx)
	for {
		line, err := readLine(r, maxReply)
		if err != nil {
			return rep, ended(ctx, req.Op, err)
		}
		if err := json.Unmarshal(line, &rep); err != nil {
			return rep, fmt.Errorf("the answer to %s is not understood: %w: is that the socket of remora?", req.Op, err)
		}
		if rep.Stage == nil || tell == nil {
			break
		}
		tell(*rep.Stage)
		rep = reply{}
	}
	if rep.Version != protocol && rep.Error == nil {
		return rep, fmt.Errorf("the daemon answers in version %d of the control protocol, this command speaks version %d: use the remora binary that the daemon runs",
			rep.Version, protocol)
	}
	return rep, nil
}

// ended explains a stream that ended before the answer.
func ended(ctx context.Context, op string, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("%w: it did not answer to %s in time", ErrUnreachable, op)
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", op, ctx.Err())
	default:
		return fmt.Errorf("%w: it hung up before it answered to %s (%w)", ErrUnreachable, op, err)
	}
}
