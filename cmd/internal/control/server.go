package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Bounds on what streams may take.
const (
	maxStreams = 64
	// idle is how long a client may take for a request, write how long for taking a reply.
	idle  = 30 * time.Second
	write = 10 * time.Second
)

// Server carries requests to a Backend.
type Server struct {
	backend Backend
	log     *slog.Logger
	streams chan struct{} // one token for each open stream
}

// NewServer returns a server. A nil logger discards.
func NewServer(backend Backend, log *slog.Logger) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Server{backend: backend, log: log, streams: make(chan struct{}, maxStreams)}
}

// Serve accepts streams from the commands of this machine until the context ends, then closes the listener and all
// streams and waits for them.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	var open sync.WaitGroup
	defer open.Wait()
	// Streams end with Serve, whatever ends it.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	defer l.Close()
	for {
		c, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = c.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept on the control socket %s: %w", l.Addr(), err)
		case err != nil: // out of file descriptors, say: that passes
			s.log.Error("accept on the control socket", "socket", l.Addr().String(), "error", err)
			if !pause(ctx, 100*time.Millisecond) {
				return nil
			}
		default:
			open.Go(func() { s.stream(ctx, c, fromHere) })
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// ServeConn serves a control stream from another node until it or the context ends, and closes it. Who may open one is
// for the caller to decide.
func (s *Server) ServeConn(ctx context.Context, c net.Conn) { s.stream(ctx, c, fromNode) }

// ServeHook serves a control stream from a hook on a host without a daemon: it may ask what MHA's scripts ask, and no more.
func (s *Server) ServeHook(ctx context.Context, c net.Conn) { s.stream(ctx, c, fromHook) }

// origin says where a stream comes from.
type origin uint8

const (
	fromHere origin = iota
	fromNode
	fromHook
)

// mayAsk are the operations of hooks.
func mayAsk(op string) bool {
	return op == opStatus || op == opAdvise || op == opServer || op == opReport
}

func (s *Server) stream(ctx context.Context, c net.Conn, from origin) {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		_ = s.reply(c, nil, &Error{CodeBusy, fmt.Sprintf("the daemon serves %d control streams already: try again", maxStreams)})
		return
	}
	if err := s.requests(ctx, c, from); err != nil && ctx.Err() == nil {
		s.log.Debug("control stream ended", "peer", c.RemoteAddr().String(), "error", err)
	}
}

// requests serves one request after the other.
func (s *Server) requests(ctx context.Context, c net.Conn, from origin) error {
	r := bufio.NewReader(c)
	for {
		// The deadline is for the whole line: sending it byte by byte gains nothing.
		if err := c.SetReadDeadline(time.Now().Add(idle)); err != nil {
			return err
		}
		line, err := readLine(r, maxRequest)
		if errors.Is(err, errTooLong) {
			return s.reply(c, nil, &Error{CodeRequest, fmt.Sprintf("the request is longer than %d bytes", maxRequest)})
		}
		if err != nil {
			return err
		}
		req, problem := decodeRequest(line)
		if problem != nil {
			return s.reply(c, nil, problem)
		}
		if from == fromHook && !mayAsk(req.Op) {
			return s.reply(c, nil, &Error{CodeRefused, fmt.Sprintf("a hook may not ask for %q", req.Op)})
		}
		result, err := s.carryOut(staged(ctx, c, req), req, from == fromNode)
		if err := s.reply(c, result, err); err != nil {
			return err
		}
	}
}

// staged has the stages of an operation sent, if they are asked for. What can not be sent is left out: the reply will tell.
func staged(ctx context.Context, c net.Conn, req request) context.Context {
	if !req.Stages {
		return ctx
	}
	return WithStages(ctx, func(st Stage) {
		if c.SetWriteDeadline(time.Now().Add(write)) == nil {
			_ = writeLine(c, reply{Version: protocol, Stage: &st})
		}
	})
}

func (s *Server) reply(c net.Conn, result any, err error) error {
	rep := reply{Version: protocol}
	if err != nil {
		rep.Error = asError(err)
	} else if rep.Result, err = json.Marshal(result); err != nil {
		return fmt.Errorf("encode a reply: %w", err)
	}
	if err := c.SetWriteDeadline(time.Now().Add(write)); err != nil {
		return err
	}
	return writeLine(c, rep)
}

func (s *Server) carryOut(ctx context.Context, req request, remote bool) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, req.timeout())
	defer cancel()
	switch req.Op {
	case opStatus:
		return s.backend.Status(ctx)
	case opHistory:
		var args HistoryRequest
		if err := decodeArgs(req, &args); err != nil {
			return nil, err
		}
		return s.backend.History(ctx, args)
	case opTrace:
		return s.backend.Trace(ctx, TraceRequest{Forwarded: remote})
	case opSwitchover:
		args := SwitchoverRequest{Forwarded: remote}
		if err := decodeArgs(req, &args); err != nil {
			return nil, err
		}
		return s.backend.Switchover(ctx, args)
	case opPause:
		args := PauseRequest{Forwarded: remote}
		if err := decodeArgs(req, &args); err != nil {
			return nil, err
		}
		return struct{}{}, s.backend.Pause(ctx, args)
	}
	return s.carryOutPromotion(ctx, req, remote)
}

func unknownOperation(req request) error {
	return &Error{CodeRequest, fmt.Sprintf("this daemon knows no operation %q: it may be older than the command", req.Op)}
}

func decodeArgs(req request, args any) error {
	if len(req.Args) == 0 {
		return nil
	}
	if err := json.Unmarshal(req.Args, args); err != nil {
		return &Error{CodeRequest, fmt.Sprintf("the arguments of %s are not understood: %v", req.Op, err)}
	}
	return nil
}
