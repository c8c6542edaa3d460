package detector

import (
	"context"
	"net"
	"testing"
	"time"
)

// TestAnAcceptedConnectionIsNoAnswer holds the difference to a check of TCP: the kernel accepts connections for a server
// that is stopped.
func TestAnAcceptedConnectionIsNoAnswer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const limit = 300 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	start := time.Now()
	if v, err := AskOnce(ctx, l.Addr().String(), "remora", ""); err == nil {
		t.Errorf("a server that says nothing answered %v", v)
	}
	if took := time.Since(start); took > 10*limit {
		t.Errorf("it took %v although the time was over after %v", took, limit)
	}
}

func TestNobodyListensIsNoAnswer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := AskOnce(ctx, address, "remora", ""); err == nil {
		t.Error("a closed port answered")
	}
}
