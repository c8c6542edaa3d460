package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

func TestErrorsKeepTheirCode(t *testing.T) {
	for _, c := range []struct {
		err  error
		code Code
		text string
	}{
		{Refusedf("db2 could not serve: %s", "MySQL failed"), CodeRefused, "db2 could not serve: MySQL failed"},
		{fmt.Errorf("ask the leader db3: %w", Refusedf("no")), CodeRefused, "ask the leader db3: no"},
		{errors.New("broken"), CodeFailed, "broken"},
		{context.DeadlineExceeded, CodeTimeout, "the time was over before the outcome was known; 'remora status' shows the present state"},
	} {
		_, err := Local(start(t, &fake{err: c.err})).Switchover(t.Context(), SwitchoverRequest{})
		var e *Error
		if !errors.As(err, &e) || e.Code != c.code || e.Text != c.text {
			t.Errorf("%v arrived as %v", c.err, err)
		}
	}
}

func TestSlowBackendEndsWithTheClientsTime(t *testing.T) {
	c := Local(start(t, &fake{hang: true}))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := c.Status(ctx)
	var e *Error
	// The server's own word normally arrives first; on a busy machine the client's time may be over before.
	if !(errors.As(err, &e) && e.Code == CodeTimeout) && !errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v", err)
	}
}

func TestDaemonHangsUp(t *testing.T) {
	c := NewClient(func(context.Context) (net.Conn, error) {
		a, b := net.Pipe()
		go func() {
			_, _ = bufio.NewReader(a).ReadString('\n')
			a.Close()
		}()
		return b, nil
	})
	if _, err := c.Status(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v", err)
	}
}

func TestBadRequests(t *testing.T) {
	socket := start(t, new(fake))
	for _, c := range []struct {
		line string
		code Code
	}{
		{"hello\n", CodeRequest},
		{`{"remora":2,"op":"status"}` + "\n", CodeVersion},
		{`{"op":"status"}` + "\n", CodeVersion},
		{`{"remora":1,"op":"fly"}` + "\n", CodeRequest},
		{`{"remora":1,"op":"history","args":[1]}` + "\n", CodeRequest},
		{strings.Repeat("x", maxRequest+1) + "\n", CodeRequest},
	} {
		rep := raw(t, socket, c.line)
		if rep.Error == nil || rep.Error.Code != c.code || rep.Version != protocol {
			t.Errorf("%.40q: got %+v", c.line, rep)
		}
	}
}

// raw sends bytes and returns the reply.
func raw(t *testing.T, socket, line string) reply {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	go conn.Write([]byte(line)) // the server may hang up before it has read all of it
	answer, err := bufio.NewReader(conn).ReadBytes('\n')
	if err != nil {
		t.Fatalf("%.40q: %v", line, err)
	}
	var rep reply
	if err := json.Unmarshal(answer, &rep); err != nil {
		t.Fatal(err)
	}
	return rep
}

// TestSlowClientsHarmNobody holds that clients that say nothing, up to the bound, do not keep others from an answer, and
// that one too many is told so.
func TestSlowClientsHarmNobody(t *testing.T) {
	socket := start(t, new(fake))
	for range maxStreams - 1 {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("{")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Local(socket).Status(t.Context()); err != nil {
		t.Errorf("beside %d silent clients: %v", maxStreams-1, err)
	}
	last, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer last.Close()
	deadline := time.Now().Add(20 * time.Second)
	for {
		_, err := Local(socket).Status(t.Context())
		var e *Error
		if errors.As(err, &e) && e.Code == CodeBusy || errors.Is(err, ErrUnreachable) {
			return // the refusal may be lost to the reset that follows it
		}
		if time.Now().After(deadline) {
			t.Fatalf("one stream too many was not refused: %v", err)
		}
	}
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"remora":1,"op":"status"}`))
	f.Add([]byte(`{"remora":1,"op":"switchover","timeout_ms":9500,"args":{"group":"writer","to":"db2"}}`))
	f.Add([]byte(`{"remora":1,"op":"pause","timeout_ms":-1,"args":{"on":true}}`))
	f.Add([]byte(`{"remora":1,"op":"history","timeout_ms":9223372036854775807,"args":null}`))
	srv := NewServer(new(fake), nil)
	f.Fuzz(func(t *testing.T, line []byte) {
		req, problem := decodeRequest(line)
		if problem != nil {
			return
		}
		if d := req.timeout(); d <= 0 || d > 10*time.Minute {
			t.Errorf("timeout %v of %s", d, line)
		}
		if _, err := srv.carryOut(t.Context(), req, true); err != nil && asError(err).Text == "" {
			t.Errorf("an error without a text for %s", line)
		}
	})
}
