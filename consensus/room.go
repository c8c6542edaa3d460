package consensus

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A disk that fills up must stop a node neither from voting nor from appending, so the room for that is taken in advance.
const (
	// dbRoom is what the database is given. The log is cut at a thousand entries of some hundred bytes, so it stays below
	// half of that.
	dbRoom = 8 << 20
	// reserveFile is given up when the disk is full all the same, so that the log can go on for a while.
	reserveFile = "reserve"
	reserveRoom = 4 << 20
)

// takeRoom takes the room that a log in dir will need. What can not be had is logged.
func takeRoom(dir string, log *slog.Logger) {
	db := filepath.Join(dir, dbFile)
	journal := filepath.Join(dir, journalFile)
	if err := errors.Join(allocate(db, dbRoom), allocate(journal, journalRoom), allocate(filepath.Join(dir, reserveFile), reserveRoom)); err != nil {
		log.Warn("no room was taken in advance for the Raft log: a full disk may stop this node from voting", "dir", dir, "error", err)
	} else if err := errors.Join(prefill(db, dbRoom), prefill(journal, journalRoom)); err != nil {
		log.Warn("the room that was taken for the Raft log is not written yet: some takeovers take longer for that", "dir", dir, "error", err)
	}
}

// giveReserve frees the reserve's blocks. It reports whether there were any.
func (d *disk) giveReserve() bool {
	err := os.Remove(filepath.Join(d.dir, reserveFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.Warn("the room that was kept for the Raft log is not freed", "error", err)
	}
	d.spent = true
	return err == nil
}

// takeReserve takes a reserve again if that leaves as much again.
func (d *disk) takeReserve() {
	var st unix.Statfs_t
	if unix.Statfs(d.dir, &st) != nil || st.Bavail*uint64(st.Bsize) < 2*reserveRoom {
		return
	}
	d.spent = allocate(filepath.Join(d.dir, reserveFile), reserveRoom) != nil
}

// allocate has blocks put behind a file up to size, which do not count as its contents. Where the file system can not do
// that, it is not an error.
func allocate(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = nil
	}
	if err != nil {
		err = &os.PathError{Op: "fallocate", Path: path, Err: err}
	}
	return errors.Join(err, f.Close())
}

// prefill writes zeros where the first size bytes of a file were never written, which read as zeros anyway. A block that was only
// allocated costs the first write to it a commit of the file system's journal, more than the write itself, and on all nodes at
// the same time, since their logs are alike.
func prefill(path string, size int64) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	wrote := false
	zeros := make([]byte, 64<<10)
	for at := int64(0); ; {
		hole, err := unix.Seek(int(f.Fd()), at, unix.SEEK_HOLE)
		if err != nil || hole >= size {
			break // there is none, or the file system does not tell
		}
		if at, err = unix.Seek(int(f.Fd()), hole, unix.SEEK_DATA); err != nil || at > size {
			at = size // nothing was written behind it
		}
		for ; hole < at; hole += int64(len(zeros)) {
			if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), at-hole)], hole); err != nil {
				return err
			}
		}
		wrote = true
	}
	if !wrote {
		return nil
	}
	return f.Sync()
}
