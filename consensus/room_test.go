package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
)

// smallDisk mounts a file system of some MiB for the test.
func smallDisk(t *testing.T, mib int) string {
	t.Helper()
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mib)))
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes what room there is and returns what frees it.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	must(t, err)
	for block := make([]byte, 64<<10); len(block) > 0; {
		if _, err := f.Write(block); err != nil {
			block = block[:len(block)/2]
		}
	}
	must(t, f.Close())
	return func() { must(t, os.Remove(path)) }
}

// On a full disk a node goes on voting, and appends for a while. What it can not append it says, and when there is room
// again it goes on where it was.
func TestFullDisk(t *testing.T) {
	dir := smallDisk(t, 24)
	s := testStore(t, dir)
	must(t, s.SetUint64([]byte(keyTerm), 1))
	must(t, s.StoreLogs(entries(1, 4, 100)))
	free := fill(t, dir)
	for term := uint64(2); term < 200; term++ {
		must(t, s.SetUint64([]byte(keyTerm), term))
		must(t, s.SetUint64([]byte(keyVoteTerm), term))
		must(t, s.Set([]byte(keyVoteCand), fmt.Appendf(nil, "candidate-%d", term)))
	}
	next := uint64(5)
	var err error
	for written := 0; err == nil; written += 64 << 10 {
		if written > 8*reserveRoom {
			t.Fatal("a full disk takes more and more")
		}
		if err = s.StoreLogs(entries(next, 1, 64<<10)); err == nil {
			next++
		}
	}
	if got := (next - 5) * (64 << 10); !errors.Is(err, unix.ENOSPC) || got < reserveRoom {
		t.Errorf("after %d bytes: %v; want %v, and not before %d bytes", got, err, unix.ENOSPC, reserveRoom)
	}
	if a := s.log.ails(); a == nil || !strings.Contains(a.String(), "no space left") {
		t.Errorf("reported is %v", a)
	}
	must(t, s.SetUint64([]byte(keyTerm), 300))
	free()
	must(t, s.StoreLogs(entries(next, 3, 100)))
	if a := s.log.ails(); a != nil {
		t.Errorf("with room again %v is reported", a)
	}
	if _, err := os.Stat(filepath.Join(dir, reserveFile)); err != nil || s.log.spent {
		t.Errorf("no reserve was taken again: %v", err)
	}
	must(t, s.Close())
	s = testStore(t, dir)
	defer s.Close()
	last, err := s.LastIndex()
	must(t, err)
	if last != next+2 || s.Term() != 300 {
		t.Errorf("the last entry is %d, the term %d; want %d, 300", last, s.Term(), next+2)
	}
	for i := uint64(1); i <= last; i++ {
		must(t, s.GetLog(i, &raft.Log{}))
	}
}

// What was never written is written once, as the zeros that it reads as, and what is there stays.
func TestTheLogsRoomIsWrittenInAdvance(t *testing.T) {
	path := filepath.Join(t.TempDir(), dbFile)
	const size, page = 1 << 20, 4096
	want := make([]byte, size+page)
	f, err := os.Create(path)
	must(t, err)
	for _, at := range []int64{0, 5 * page, 300<<10 + page, size - page, size} {
		block := bytes.Repeat([]byte{byte(at>>12) | 1}, page)
		copy(want[at:], block)
		_, err := f.WriteAt(block, at)
		must(t, err)
	}
	must(t, f.Close())
	must(t, prefill(path, size))
	got, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Error("what was in the file is not any more")
	}
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	if written := st.Blocks * 512; written < size {
		t.Errorf("%d bytes of %d are written", written, size)
	}
	s := testStore(t, t.TempDir())
	defer s.Close()
	log, err := os.Open(filepath.Join(s.log.dir, dbFile))
	must(t, err)
	defer log.Close()
	if hole, err := unix.Seek(int(log.Fd()), 0, unix.SEEK_HOLE); err != nil || hole < dbRoom {
		t.Errorf("a new log was written up to %d bytes, %v; want %d", hole, err, dbRoom)
	}
}

func TestAllocateSaysThatThereIsNoRoom(t *testing.T) {
	dir := smallDisk(t, 1)
	if err := allocate(filepath.Join(dir, "f"), 8<<20); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("allocated 8 MiB of 1 with %v, want %v", err, unix.ENOSPC)
	}
}

func TestAllocateKeepsTheContents(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	must(t, os.WriteFile(path, []byte("kept"), 0o600))
	must(t, allocate(path, 1<<20))
	b, err := os.ReadFile(path)
	must(t, err)
	if string(b) != "kept" {
		t.Errorf("the file holds %q", b)
	}
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	if st.Blocks*512 < 1<<20 {
		t.Errorf("%d bytes are allocated", st.Blocks*512)
	}
}
