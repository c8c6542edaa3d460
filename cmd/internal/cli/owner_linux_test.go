package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// Who is neither root nor the owner of the state directory may not write there, even if the rights would let them. What root does is
// tried by TestRecover in bench/e2e, since it is for the whole process.
func TestOnlyTheOwnerWritesIntoTheStateDirectory(t *testing.T) {
	dir, me := t.TempDir(), os.Geteuid()
	if err := becomeOwner(dir, me); err != nil || os.Geteuid() != me {
		t.Errorf("the owner: %v", err)
	}
	var usage usageError
	if err := becomeOwner(dir, me+1); !errors.As(err, &usage) {
		t.Errorf("another user: %v", err)
	}
	if err := becomeOwner(filepath.Join(dir, "none"), me); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that is not there: %v", err)
	}
}
