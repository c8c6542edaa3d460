package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-ha/remora/cmd/internal/trace"
)

// fake is a Backend that remembers what it was asked.
type fake struct {
	mu         sync.Mutex
	switchover []SwitchoverRequest
	pauses     []PauseRequest
	advice     []AdviceRequest
	reports    []string
	promotions []PromoteRequest
	rejoins    int
	traces     []TraceRequest
	stages     []Stage
	err        error
	hang       bool
}

func (f *fake) Status(ctx context.Context) (Status, error) {
	if f.hang {
		<-ctx.Done()
		return Status{}, ctx.Err()
	}
	return sample(), f.err
}

func (f *fake) History(_ context.Context, req HistoryRequest) ([]HistoryEntry, error) {
	return []HistoryEntry{{Index: uint64(req.Limit), Time: sampleTime, Kind: "grant", Group: req.Group, Epoch: 8, Node: "db1", From: "db2", Reason: "operator"}}, f.err
}

func (f *fake) Trace(_ context.Context, req TraceRequest) (TraceResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.traces = append(f.traces, req)
	return TraceResult{Pieces: []trace.Piece{{Node: "db1", Group: "writer", Epoch: 8, Marks: []trace.Mark{{Name: "proposed", US: 3}}}},
		Silent: map[string]string{"db2": "gone"}}, f.err
}

func (f *fake) Switchover(ctx context.Context, req SwitchoverRequest) (SwitchoverResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if tell := StagesOf(ctx); tell != nil {
		for _, s := range f.stages {
			tell(s)
		}
	}
	f.switchover = append(f.switchover, req)
	return SwitchoverResult{Group: req.Group, From: "db1", To: req.To, Epoch: 9, TookMS: 7}, f.err
}

func (f *fake) Pause(_ context.Context, req PauseRequest) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pauses = append(f.pauses, req)
	return f.err
}

func (f *fake) Advise(_ context.Context, req AdviceRequest) (AdviceResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.advice = append(f.advice, req)
	return AdviceResult{Outcome: AdviceSeen, Group: req.Group, Node: req.New.Host, Owner: req.New.Host, Epoch: 9, TookMS: 7}, f.err
}

func (f *fake) Sight(_ context.Context, req SightRequest) (Sight, error) {
	return Sight{MAC: "02:00:00:00:00:" + req.Group, Own: true}, f.err
}

func (f *fake) AskServer(_ context.Context, req ServerRequest) (ServerAnswer, error) {
	return ServerAnswer{Node: req.Server.Host, Answered: []string{fmt.Sprint(req.Forwarded)}, ReadOnly: "no"}, f.err
}

func (f *fake) Report(_ context.Context, req ReportRequest) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reports = append(f.reports, req.Text)
	return f.err
}

// start serves a backend on a real socket until the test ends.
func start(t *testing.T, b Backend) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "run", "remora.sock")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- NewServer(b, nil).Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		if _, err := os.Lstat(socket); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket is left behind: %v", err)
		}
	})
	return socket
}

func TestEveryOperation(t *testing.T) {
	f := new(fake)
	c := Local(start(t, f))
	ctx := t.Context()
	s, err := c.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sample(), s); diff != "" {
		t.Errorf("status (-sent +got):\n%s", diff)
	}
	h, err := c.History(ctx, HistoryRequest{Group: "writer", Limit: 3})
	if err != nil || len(h) != 1 || h[0].Index != 3 || h[0].Group != "writer" {
		t.Errorf("history %+v, %v", h, err)
	}
	tr, err := c.Trace(ctx, TraceRequest{})
	if err != nil || len(tr.Pieces) != 1 || tr.Pieces[0].Marks[0].US != 3 || tr.Silent["db2"] != "gone" || f.traces[0].Forwarded {
		t.Errorf("trace %+v, %v, asked %+v", tr, err, f.traces)
	}
	r, err := c.Switchover(ctx, SwitchoverRequest{Group: "writer", To: "db2", Reason: "work"})
	if err != nil || r != (SwitchoverResult{"writer", "db1", "db2", 9, 7}) {
		t.Errorf("switchover %+v, %v", r, err)
	}
	if err := c.Pause(ctx, PauseRequest{Group: "writer", On: true, Reason: "work"}); err != nil {
		t.Errorf("pause: %v", err)
	}
	if diff := cmp.Diff([]SwitchoverRequest{{Group: "writer", To: "db2", Reason: "work"}}, f.switchover); diff != "" {
		t.Errorf("switchover asked (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]PauseRequest{{Group: "writer", On: true, Reason: "work"}}, f.pauses); diff != "" {
		t.Errorf("pause asked (-want +got):\n%s", diff)
	}
}

// The stages of an operation come before its end, also by way of another daemon, and only to those who ask for them.
func TestStagesAreTold(t *testing.T) {
	f := &fake{stages: []Stage{{"db1 gives the addresses up", 700}, {"db2 serves", 12_000}}}
	there := Local(start(t, f))
	for name, c := range map[string]*Client{"at the leader": there, "at another node": Local(start(t, there))} {
		t.Run(name, func(t *testing.T) {
			var got []Stage
			ctx := WithStages(t.Context(), func(s Stage) { got = append(got, s) })
			r, err := c.Switchover(ctx, SwitchoverRequest{Group: "writer", To: "db2"})
			if err != nil || r.Epoch != 9 {
				t.Errorf("switchover %+v, %v", r, err)
			}
			if diff := cmp.Diff(f.stages, got); diff != "" {
				t.Errorf("stages (-sent +got):\n%s", diff)
			}
			if _, err := c.Switchover(t.Context(), SwitchoverRequest{Group: "writer", To: "db2"}); err != nil || len(got) != len(f.stages) {
				t.Errorf("without asking: %v, %d stages", err, len(got))
			}
		})
	}
	f.err = Refusedf("no")
	told := 0
	var e *Error
	_, err := there.Switchover(WithStages(t.Context(), func(Stage) { told++ }), SwitchoverRequest{})
	if !errors.As(err, &e) || e.Code != CodeRefused || told != len(f.stages) {
		t.Errorf("a refusal after %d stages: %v", told, err)
	}
}

func TestEveryOperationOfFailoverManagers(t *testing.T) {
	f := new(fake)
	c := Local(start(t, f))
	ctx := t.Context()
	req := AdviceRequest{Command: "start", Online: true, Group: "writer", Old: DBServer{Host: "db1"}, New: DBServer{Host: "db2", IP: "10.77.0.12"}, By: "MHA"}
	r, err := c.Advise(ctx, req)
	if want := (AdviceResult{Outcome: AdviceSeen, Group: "writer", Node: "db2", Owner: "db2", Epoch: 9, TookMS: 7}); err != nil || r != want {
		t.Errorf("advise %+v, %v", r, err)
	}
	if diff := cmp.Diff([]AdviceRequest{req}, f.advice); diff != "" {
		t.Errorf("advice (-want +got):\n%s", diff)
	}
	if s, err := c.Sight(ctx, SightRequest{Group: "01"}); err != nil || s != (Sight{MAC: "02:00:00:00:00:01", Own: true}) {
		t.Errorf("sight %+v, %v", s, err)
	}
	a, err := c.AskServer(ctx, ServerRequest{Server: DBServer{Host: "db1"}})
	if diff := cmp.Diff(ServerAnswer{Node: "db1", Answered: []string{"false"}, ReadOnly: "no"}, a); err != nil || diff != "" {
		t.Errorf("server %v\n%s", err, diff)
	}
	if err := c.Report(ctx, ReportRequest{Text: "done"}); err != nil || len(f.reports) != 1 || f.reports[0] != "done" {
		t.Errorf("report %v, %q", err, f.reports)
	}
}

// TestStreamFromAnotherNode holds that what came from another node is marked, whatever the sender writes.
func TestStreamFromAnotherNode(t *testing.T) {
	f := new(fake)
	srv := NewServer(f, nil)
	var streams sync.WaitGroup
	defer streams.Wait()
	c := NewClient(func(context.Context) (net.Conn, error) {
		a, b := net.Pipe()
		streams.Go(func() { srv.ServeConn(t.Context(), a) })
		return b, nil
	})
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
	srv := NewServer(f, nil)
	var streams sync.WaitGroup
	defer streams.Wait()
	c := NewClient(func(context.Context) (net.Conn, error) {
		a, b := net.Pipe()
		streams.Go(func() { srv.ServeHook(t.Context(), a) })
		return b, nil
	})
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

func TestNoDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "remora.sock")
	_, err := Local(path).Status(t.Context())
	want := "the daemon can not be reached: nobody answers on socket " + path +
		" (connect: no such file or directory): is it running ('systemctl status remora')? Another socket is named with --socket or REMORA_SOCKET"
	if !errors.Is(err, ErrUnreachable) || err.Error() != want {
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

func TestServeEndsWithOpenStreams(t *testing.T) {
	socket := start(t, new(fake)) // its cleanup waits for Serve
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
}

func TestSocketMode(t *testing.T) {
	socket := start(t, new(fake))
	fi, err := os.Lstat(socket)
	if err != nil || fi.Mode().Perm() != 0o660 || fi.Mode().Type() != fs.ModeSocket {
		t.Errorf("socket %v, %v", fi.Mode(), err)
	}
	if fi, err := os.Stat(filepath.Dir(socket)); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("directory %v, %v", fi.Mode(), err)
	}
}

func TestLiveSocketIsRefused(t *testing.T) {
	socket := start(t, new(fake))
	if _, err := Listen(socket); !errors.Is(err, ErrLive) {
		t.Errorf("a second daemon on the same socket: %v", err)
	}
	if _, err := Local(socket).Status(t.Context()); err != nil {
		t.Errorf("the first daemon after that: %v", err)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "remora.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	l, err := Listen(path)
	if err != nil {
		t.Fatalf("over the socket of a dead daemon: %v", err)
	}
	l.Close()
}

func TestFileInTheWayIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "remora.sock")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil {
		t.Error("a file was taken for a socket")
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "mine" {
		t.Errorf("the file is %q, %v", data, err)
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
