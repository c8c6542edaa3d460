package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"
)

// Bounds on what scrapers may take.
const (
	maxConns    = 16
	maxScrapes  = 2
	maxHeader   = 8 << 10
	readWithin  = 5 * time.Second
	writeWithin = 10 * time.Second
	idleWithin  = time.Minute
	// again is how long the server waits before it tries to listen again.
	again = 5 * time.Second
)

// handler serves /metrics and nothing else.
func (m *Metrics) handler(log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn), ErrorHandling: promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes, Timeout: readWithin,
	}))
	return mux
}

// Serve offers the metrics at an address until ctx ends. An address that can not be had is no reason to end a daemon: it is
// logged, and tried again.
func (m *Metrics) Serve(ctx context.Context, at netip.AddrPort, log *slog.Logger) {
	told := false
	for ctx.Err() == nil {
		err := m.serve(ctx, at, log)
		if err == nil {
			return
		}
		if !told {
			told = true
			log.Error("no metrics are offered, which is tried again until it works", "listen", at, "reason", err)
		}
		select {
		case <-time.After(again):
		case <-ctx.Done():
		}
	}
}

func (m *Metrics) serve(ctx context.Context, at netip.AddrPort, log *slog.Logger) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", at.String())
	if err != nil {
		return fmt.Errorf("listen for scrapers at %s: %w", at, err)
	}
	log.Info("metrics are offered", "url", "http://"+l.Addr().String()+"/metrics")
	s := &http.Server{Handler: m.handler(log), ReadHeaderTimeout: readWithin, ReadTimeout: readWithin, WriteTimeout: writeWithin,
		IdleTimeout: idleWithin, MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(netutil.LimitListener(l, maxConns)); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve scrapers at %s: %w", at, err)
	}
	return nil
}
