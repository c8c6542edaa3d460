package daemon

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/remora-ha/remora/cmd/internal/config"
	"github.com/remora-ha/remora/core"
)

// A daemon starts although it can not tell how long leases were, and waits for the longest that there can be.
func TestStartWaitsForALeaseThatIsNotKnown(t *testing.T) {
	d := &daemon{cfg: &config.Config{StateDir: t.TempDir()}, log: slog.New(slog.DiscardHandler)}
	if got, want := d.startWait(), core.Margin(0); got != want {
		t.Errorf("with a new state directory it waits for %v, want %v", got, want)
	}
	if err := os.WriteFile(filepath.Join(d.cfg.StateDir, "longest-lease"), []byte("soon\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, want := d.startWait(), core.MaxTTL+core.UnfencedMargin(core.MaxTTL); got != want {
		t.Errorf("with a damaged file it waits for %v, want %v", got, want)
	}
}
