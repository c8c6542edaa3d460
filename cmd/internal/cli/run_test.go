package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/remora-ha/remora/cmd/internal/config"
	"github.com/remora-ha/remora/cmd/internal/daemon"
)

func TestRun(t *testing.T) {
	file := site(t, same)
	var got daemon.Options
	env := Env{Run: func(ctx context.Context, o daemon.Options) error {
		got = o
		o.Logger.Info("hello", "node", o.Self.Name)
		return nil
	}}
	run(t, env, "run", "--config", file, "--node", "db1", "--dry-run", "--log-format", "json").
		expect(t, "run", ExitOK, "", `"msg":"hello","node":"db1"}`)
	if got.Config == nil || got.Path != file || got.Self.Name != "db1" || !got.DryRun || got.Version != "v0.1.0" {
		t.Errorf("options %+v", got)
	}
	env.Run = func(context.Context, daemon.Options) error { return errors.New("the disk is full") }
	run(t, env, "run", "--config", file, "--node", "db1").expect(t, "run that fails", ExitFailed, "", "remora: the disk is full\n")
}

// stuck is standard error whose reader stands still until goes is closed.
type stuck struct {
	bytes.Buffer
	goes chan struct{}
}

func (s *stuck) Write(b []byte) (int, error) {
	<-s.goes
	return s.Buffer.Write(b)
}

// A daemon that nobody listens to ends all the same.
func TestRunEndsWhoeverReadsTheLog(t *testing.T) {
	errOut := &stuck{goes: make(chan struct{})}
	defer close(errOut.goes)
	env := Env{Args: []string{"run", "--config", site(t, same), "--node", "db1"}, Stdout: io.Discard, Stderr: errOut, Host: config.ThisHost(),
		Getenv: func(string) string { return "" },
		Run: func(_ context.Context, o daemon.Options) error {
			for range 20000 {
				o.Logger.Info("hello")
			}
			return errors.New("the disk is full")
		}}
	ended := make(chan int, 1)
	go func() { ended <- Main(t.Context(), env) }()
	select {
	case code := <-ended:
		if code != ExitFailed {
			t.Errorf("exit code %d, want %d", code, ExitFailed)
		}
	case <-time.After(time.Minute):
		t.Fatal("it waits for the reader of its log")
	}
}

// That lines were dropped is told in the log's own form.
func TestDroppedLinesAreTold(t *testing.T) {
	errOut := &stuck{goes: make(chan struct{})}
	log, lines, err := newLogger(errOut, "info", "json")
	if err != nil {
		t.Fatal(err)
	}
	const logged = 20000
	for range logged {
		log.Info("hello")
	}
	close(errOut.goes)
	lines.Close()
	written, dropped := 0, 0
	for text := range strings.Lines(errOut.String()) {
		var line struct {
			Msg   string
			Lines int
		}
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if line.Msg == "hello" {
			written++
		}
		dropped += line.Lines
	}
	if dropped == 0 || written+dropped != logged {
		t.Errorf("%d lines were written and %d are told to be dropped, of %d", written, dropped, logged)
	}
}

// TestRunTouchesNothingWhenSomethingIsWrong holds that the daemon is not even called.
func TestRunTouchesNothingWhenSomethingIsWrong(t *testing.T) {
	env := Env{Run: func(context.Context, daemon.Options) error {
		t.Error("the daemon was started")
		return nil
	}}
	file := site(t, func(s string) string {
		return strings.NewReplacer(`interface = "lo"`, `interface = "none0"`, `policy = "follow"`, `policy = "folow"`).Replace(s)
	})
	run(t, env, "run", "--config", file, "--node", "db1").expect(t, "a bad file", ExitUsage, "", `there is no policy "folow"`)
	file = site(t, func(s string) string { return strings.ReplaceAll(s, `interface = "lo"`, `interface = "none0"`) })
	run(t, env, "run", "--config", file, "--node", "db1").expect(t, "a bad machine", ExitUsage, "", `node db1 has no interface "none0"`)
	run(t, env, "run", "--config", file, "--node", "db9").expect(t, "an unknown node", ExitUsage, "", `there is no node "db9"`)
	run(t, env, "run", "--config", "/nonexistent").expect(t, "no file", ExitUsage, "", "/nonexistent: can not be read")
}
