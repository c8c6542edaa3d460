package lab

import (
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// Who starts again what was killed must not find it running, however long it takes to die.
func TestAKilledProcessDoesNotRun(t *testing.T) {
	p, err := startProcess(nil, "sleep", filepath.Join(t.TempDir(), "log"), exec.Command("sleep", "60"))
	if err != nil {
		t.Fatal(err)
	}
	if !p.Running() {
		t.Errorf("it ended with %d before it was killed", p.ExitCode())
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if p.Running() {
		t.Error("it runs after it was killed")
	}
}
