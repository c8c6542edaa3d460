package control

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
)

// streamTo returns a client whose requests are served as those that come from another host.
func streamTo(t *testing.T, serve func(context.Context, net.Conn)) *Client {
	t.Helper()
	var streams sync.WaitGroup
	t.Cleanup(streams.Wait)
	return NewClient(func(context.Context) (net.Conn, error) {
		a, b := net.Pipe()
		streams.Go(func() { serve(t.Context(), a) })
		return b, nil
	})
}

// TestStreamFromAnotherNode holds that what came from another node is marked, whatever the sender writes.
func TestStreamFromAnotherNode(t *testing.T) {
	f := new(fake)
	c := streamTo(t, NewServer(f, nil).ServeConn)
	if _, err := c.Switchover(t.Context(), SwitchoverRequest{Group: "writer", To: "db2"}); err != nil {
		t.Fatal(err)
	}
	if err := c.Pause(t.Context(), PauseRequest{}); err != nil {
		t.Fatal(err)
	}
	if !f.switchover[0].Forwarded || !f.pauses[0].Forwarded {
		t.Errorf("not marked as forwarded: %+v %+v", f.switchover, f.pauses)
	}
}

// TestHooksMayNotOperate holds that a hook from another host can ask what MHA asks, and is not taken for a node.
func TestHooksMayNotOperate(t *testing.T) {
	f := new(fake)
	c := streamTo(t, NewServer(f, nil).ServeHook)
	if _, err := c.Advise(t.Context(), AdviceRequest{Command: "stop"}); err != nil || f.advice[0].Forwarded {
		t.Errorf("advice: %v, %+v", err, f.advice)
	}
	var e *Error
	if _, err := c.Switchover(t.Context(), SwitchoverRequest{Group: "writer", To: "db2"}); !errors.As(err, &e) || e.Code != CodeRefused {
		t.Errorf("switchover: %v", err)
	}
	if err := c.Pause(t.Context(), PauseRequest{}); !errors.As(err, &e) || len(f.switchover)+len(f.pauses) > 0 {
		t.Errorf("pause: %v, carried out %+v %+v", err, f.switchover, f.pauses)
	}
}
