package consensus

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/remora-ha/remora/core"
)

// The longest lease has a file of its own in the state directory: one line of a fixed length, which is made with the
// directory and written in place from then on. So its room is there already when the disk is full, and a line that
// was not written in full shows by its checksum.
const (
	longestFile = "longest-lease"
	longestSize = 64 // within a sector of any disk
)

// LongestLease returns the longest lease that this node has seen in the ledger, as kept in the state directory; zero if
// it has seen none. A starting node waits that long, and the margin, before it takes part. If what is kept there can not
// be read or trusted, it returns [core.MaxTTL], the longest that there can be, and an error that says why.
func LongestLease(stateDir string) (time.Duration, error) {
	l, err := readLongest(stateDir)
	return l.lease.Duration(), err
}

// longest is the longest lease that may be out, as of a position in the log. Positions only rise, so that a restart,
// which applies old entries again, does not write an older length over a newer one.
type longest struct {
	lease core.Millis
	at    core.Index
}

// unknownLongest stands for a longest lease that can not be read.
var unknownLongest = longest{lease: core.Millis(core.MaxTTL.Milliseconds())}

// readLongest reads the file. It is missing where the state directory is new; a Raft log without it is not what this
// node has left there.
func readLongest(dir string) (longest, error) {
	path := filepath.Join(dir, longestFile)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err = os.Stat(filepath.Join(dir, logDir, dbFile)); errors.Is(err, fs.ErrNotExist) {
			return longest{}, nil
		}
		err = errors.Join(err, fmt.Errorf("%s is missing beside a Raft log", path))
	}
	if err != nil {
		return unknownLongest, fmt.Errorf("read the longest lease: %w", err)
	}
	line := string(raw[:min(len(raw), longestSize)])
	var l longest
	if _, err := fmt.Sscanf(line, "%d ms at entry %d ", &l.lease, &l.at); err != nil || line != string(l.line()) {
		return unknownLongest, fmt.Errorf("read the longest lease: %s is damaged: %q", path, line)
	}
	return l, nil
}

// takeLongest reads the file and sees to it that there is a sound one.
func takeLongest(dir string) (longest, error) {
	l, err := readLongest(dir)
	if err == nil && l != (longest{}) {
		return l, nil
	}
	return l, l.write(dir)
}

// line is the contents of the file.
func (l longest) line() []byte {
	text := fmt.Appendf(nil, "%d ms at entry %d ", l.lease, l.at)
	return fmt.Appendf(nil, "%-*s%08x\n", longestSize-len("01234567\n"), text, crc32.ChecksumIEEE(text))
}

// write writes the line over the one that is there, and returns when it is on disk.
func (l longest) write(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, longestFile), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write the longest lease: %w", err)
	}
	_, err = f.WriteAt(l.line(), 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("write the longest lease: %w", err)
	}
	return nil
}
