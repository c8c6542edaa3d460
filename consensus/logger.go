package consensus

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// quietFor is how long a message of the Raft library is held back after it was logged: with a dead peer it complains
// dozens of times a second.
const quietFor = 10 * time.Second

// raftLogger passes the Raft library's log lines on to slog. A line that repeats is logged once in quietFor, with the
// number of those held back.
type raftLogger struct {
	out     *slog.Logger
	name    string
	implied []any
	hush    *hush
}

// hush remembers when each message was logged last.
type hush struct {
	mu   sync.Mutex
	seen map[string]*repeated
}

type repeated struct {
	at   time.Time
	held int
}

// maxHushed bounds the number of messages remembered; the library has some two hundred.
const maxHushed = 1024

func newRaftLogger(out *slog.Logger) hclog.Logger {
	return &raftLogger{out: out, hush: &hush{seen: map[string]*repeated{}}}
}

// pass reports whether a line may be logged now and how many like it were held back before.
func (h *hush) pass(key string, now time.Time) (bool, int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.seen[key]
	if r == nil {
		if len(h.seen) >= maxHushed {
			clear(h.seen)
		}
		h.seen[key] = &repeated{at: now}
		return true, 0
	}
	if now.Sub(r.at) < quietFor {
		r.held++
		return false, 0
	}
	held := r.held
	r.at, r.held = now, 0
	return true, held
}

func slogLevel(l hclog.Level) slog.Level {
	switch l {
	case hclog.Trace, hclog.Debug:
		return slog.LevelDebug
	case hclog.Warn:
		return slog.LevelWarn
	case hclog.Error:
		return slog.LevelError
	default:
		return slog.LevelInfo
	}
}

func (l *raftLogger) Log(level hclog.Level, msg string, args ...any) {
	lv := slogLevel(level)
	if !l.out.Enabled(context.Background(), lv) {
		return
	}
	key := l.name + "\x00" + msg
	for i := 1; i < len(args); i += 2 {
		if args[i-1] == "peer" || args[i-1] == "server-id" || args[i-1] == "target" {
			key += fmt.Sprint("\x00", args[i])
		}
	}
	ok, held := l.hush.pass(key, time.Now())
	if !ok {
		return
	}
	all := append(append([]any{}, l.implied...), args...)
	for i, a := range all {
		if f, isFormat := a.(hclog.Format); isFormat && len(f) > 0 {
			all[i] = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
	}
	if held > 0 {
		all = append(all, "repeated", held)
	}
	l.out.Log(context.Background(), lv, "raft: "+msg, all...)
}

func (l *raftLogger) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }
func (l *raftLogger) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l *raftLogger) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l *raftLogger) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l *raftLogger) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l *raftLogger) enabled(level hclog.Level) bool {
	return l.out.Enabled(context.Background(), slogLevel(level))
}
func (l *raftLogger) IsTrace() bool { return false }
func (l *raftLogger) IsDebug() bool { return l.enabled(hclog.Debug) }
func (l *raftLogger) IsInfo() bool  { return l.enabled(hclog.Info) }
func (l *raftLogger) IsWarn() bool  { return l.enabled(hclog.Warn) }
func (l *raftLogger) IsError() bool { return l.enabled(hclog.Error) }

func (l *raftLogger) ImpliedArgs() []any { return l.implied }
func (l *raftLogger) Name() string       { return l.name }

func (l *raftLogger) With(args ...any) hclog.Logger {
	return &raftLogger{out: l.out, name: l.name, implied: append(append([]any{}, l.implied...), args...), hush: l.hush}
}

func (l *raftLogger) Named(name string) hclog.Logger {
	if l.name != "" {
		name = l.name + "." + name
	}
	return l.ResetNamed(name)
}

func (l *raftLogger) ResetNamed(name string) hclog.Logger {
	return &raftLogger{out: l.out, name: name, implied: l.implied, hush: l.hush}
}

// SetLevel does nothing: the level is that of the slog handler.
func (l *raftLogger) SetLevel(hclog.Level) {}

func (l *raftLogger) GetLevel() hclog.Level {
	if l.IsDebug() {
		return hclog.Debug
	}
	return hclog.Info
}

func (l *raftLogger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(l.out.Handler(), slog.LevelInfo)
}

func (l *raftLogger) StandardWriter(o *hclog.StandardLoggerOptions) io.Writer {
	return l.StandardLogger(o).Writer()
}
