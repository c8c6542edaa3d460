package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

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
