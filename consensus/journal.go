package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
)

// An append to a database is at least two writes, each with a flush of its own: what is new, and then the page that makes it count.
// Entries of a log need less. They go to the journal first, a file of fixed size that was written in advance, so that one write and
// one flush make them durable; the database gets them later, when nobody waits for it.
//
// A record of the journal is a batch of entries. It begins on a block of its own, so that no write touches a block that something
// durable is in, and has the number of its row and its place in it. A new row begins at the file's begin once the database has all of
// the one before; the row that counts is that of the first record, up to the first that is not whole. So nothing has to be
// erased, except before entries at the end of the log are deleted, which must not come back.
const (
	journalFile = "journal"
	// journalRoom is the size of the file. When it is full an append waits for the database.
	journalRoom = 1 << 20
	// journalBlock is the unit in which disks write.
	journalBlock = 4096
	journalMagic = "RMJ1"
)

// recordHeader is the length of a record's header: the magic, the length of the entries, the row, the place in it, and the checksum of
// all that and the entries.
const recordHeader = len(journalMagic) + 4 + 8 + 4 + 4

var (
	// errJournalFull is returned when the journal has no room for a record.
	errJournalFull = errors.New("the journal is full")
	// errJournalDamaged means that a journal has whole records that do not belong together.
	errJournalDamaged = errors.New("the journal of the Raft log is damaged")

	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// journal is the file. Its methods are not safe for concurrent use.
type journal struct {
	f    *os.File
	row  uint64
	next uint32 // the place of the next record in the row
	at   int64  // where that goes
	buf  []byte
}

// openJournal opens the journal in dir, or makes one, and returns the entries in it.
func openJournal(dir string) (j *journal, entries []*raft.Log, err error) {
	path := filepath.Join(dir, journalFile)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600); err == nil {
			err = syncDir(dir)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	raw := make([]byte, journalRoom)
	n, err := f.ReadAt(raw, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, errors.Join(err, f.Close())
	}
	j = &journal{f: f}
	if entries, err = j.parse(raw[:n]); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	if j.next == 0 {
		j.begin()
	}
	return j, entries, nil
}

// begin begins a row.
func (j *journal) begin() { j.row, j.next, j.at = rand.Uint64(), 0, 0 }

// parse reads the row that counts, and leaves the journal at its end.
func (j *journal) parse(raw []byte) (entries []*raft.Log, err error) {
	for {
		row, place, body, ok := parseRecord(raw[min(j.at, int64(len(raw))):])
		if !ok || place != j.next || place > 0 && row != j.row {
			return entries, nil
		}
		batch, err := parseEntries(body)
		if err != nil {
			return nil, err
		}
		for _, l := range batch {
			if n := len(entries); n > 0 && l.Index != entries[n-1].Index+1 {
				return nil, fmt.Errorf("%w: entry %d follows entry %d", errJournalDamaged, l.Index, entries[n-1].Index)
			}
			entries = append(entries, l)
		}
		j.row, j.next, j.at = row, place+1, j.at+blocks(recordHeader+len(body))
	}
}

// blocks is the space that so many bytes take.
func blocks(n int) int64 { return (int64(n) + journalBlock - 1) / journalBlock * journalBlock }

// append makes a batch durable.
func (j *journal) append(ls []*raft.Log) error {
	b := append(j.buf[:0], journalMagic...)
	b = append(b, make([]byte, recordHeader-len(journalMagic))...)
	b = appendEntries(b, ls)
	binary.BigEndian.PutUint32(b[4:], uint32(len(b)-recordHeader))
	binary.BigEndian.PutUint64(b[8:], j.row)
	binary.BigEndian.PutUint32(b[16:], j.next)
	binary.BigEndian.PutUint32(b[20:], checksum(b))
	size := blocks(len(b))
	if size > journalRoom-j.at {
		return errJournalFull
	}
	b = append(b, make([]byte, int(size)-len(b))...)
	j.buf = b
	if _, err := j.f.WriteAt(b, j.at); err != nil {
		return err
	}
	if err := flushData(j.f); err != nil {
		return err
	}
	j.next, j.at = j.next+1, j.at+size
	return nil
}

// erase has the journal count no more.
func (j *journal) erase() error {
	if _, err := j.f.WriteAt(make([]byte, journalBlock), 0); err != nil {
		return err
	}
	j.begin()
	return flushData(j.f)
}

// flushData returns when what was written to a file that has its size is on disk.
func flushData(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
		}
	}
}

func checksum(record []byte) uint32 {
	return crc32.Update(crc32.Checksum(record[:recordHeader-4], castagnoli), castagnoli, record[recordHeader:])
}

// parseRecord reads the record at the begin of raw. One that is not whole is none.
func parseRecord(raw []byte) (row uint64, place uint32, body []byte, ok bool) {
	if len(raw) < recordHeader || string(raw[:len(journalMagic)]) != journalMagic {
		return 0, 0, nil, false
	}
	n := binary.BigEndian.Uint32(raw[4:])
	if uint64(n) > uint64(len(raw)-recordHeader) {
		return 0, 0, nil, false
	}
	raw = raw[:recordHeader+int(n)]
	if binary.BigEndian.Uint32(raw[20:]) != checksum(raw) {
		return 0, 0, nil, false
	}
	return binary.BigEndian.Uint64(raw[8:]), binary.BigEndian.Uint32(raw[16:]), raw[recordHeader:], true
}

func appendEntries(b []byte, ls []*raft.Log) []byte {
	for _, l := range ls {
		b = binary.AppendUvarint(b, l.Index)
		b = binary.AppendUvarint(b, l.Term)
		b = append(b, byte(l.Type))
		at := int64(0)
		if !l.AppendedAt.IsZero() {
			at = l.AppendedAt.UnixNano()
		}
		b = binary.AppendVarint(b, at)
		for _, part := range [][]byte{l.Data, l.Extensions} {
			b = binary.AppendUvarint(b, uint64(len(part)))
			b = append(b, part...)
		}
	}
	return b
}

// parseEntries reads the entries of a record. They share its memory.
func parseEntries(b []byte) (ls []*raft.Log, err error) {
	d := decoder{b: b}
	for len(d.b) > 0 {
		l := &raft.Log{Index: d.uint(), Term: d.uint(), Type: raft.LogType(d.byte())}
		if at := d.int(); at != 0 {
			l.AppendedAt = time.Unix(0, at)
		}
		for _, part := range []*[]byte{&l.Data, &l.Extensions} {
			if n := d.uint(); n > uint64(len(d.b)) {
				d.fail(errWireShort)
			} else if n > 0 {
				*part = d.take(int(n))
			}
		}
		if d.err != nil {
			return nil, fmt.Errorf("%w: %w", errJournalDamaged, d.err)
		}
		ls = append(ls, l)
	}
	return ls, nil
}
