package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
)

// batch makes n entries of a term.
func batch(first uint64, n int, term uint64) []*raft.Log {
	ls := entries(first, n, 100)
	for _, l := range ls {
		l.Term, l.AppendedAt = term, time.Unix(0, int64(l.Index)+1)
	}
	return ls
}

// read returns the entries of the journal in dir.
func readJournal(t *testing.T, dir string) (j *journal, ls []*raft.Log) {
	t.Helper()
	j, ls, err := openJournal(dir)
	must(t, err)
	t.Cleanup(func() { _ = j.f.Close() })
	return j, ls
}

func TestEntriesSurviveTheJournal(t *testing.T) {
	want := []*raft.Log{
		{Index: 1 << 63, Term: 5, Type: raft.LogConfiguration, Data: []byte("x"), Extensions: []byte("more"), AppendedAt: time.Unix(0, 1<<60)},
		{Index: 1, Type: raft.LogNoop},
	}
	got, err := parseEntries(appendEntries(nil, want))
	must(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// What counts of a journal is its row up to the first record that is not whole, whatever rows before have left behind.
func TestWhatCountsOfAJournal(t *testing.T) {
	flip := func(at int64) func(*os.File) error {
		return func(f *os.File) error {
			b := []byte{0}
			if _, err := f.ReadAt(b, at); err != nil {
				return err
			}
			_, err := f.WriteAt([]byte{b[0] ^ 1}, at)
			return err
		}
	}
	for _, c := range []struct {
		what string
		harm func(*os.File) error
		last uint64 // 0 means none
	}{
		{"all", func(*os.File) error { return nil }, 6},
		{"the magic of the first", flip(0), 0},
		{"the length of the second", flip(journalBlock + 7), 2},
		{"the row of the second", flip(journalBlock + 8), 2},
		{"the place of the second", flip(journalBlock + 19), 2},
		{"the entries of the second", flip(journalBlock + 60), 2},
		{"the checksum of the last", flip(2*journalBlock + 20), 4},
		{"half of the last", func(f *os.File) error { return f.Truncate(2*journalBlock + 100) }, 4},
		{"no file to speak of", func(f *os.File) error { return f.Truncate(10) }, 0},
		{"nothing at all", func(f *os.File) error { return f.Truncate(0) }, 0},
	} {
		dir := t.TempDir()
		j, _ := readJournal(t, dir)
		for i := range uint64(9) { // a longer row, which the next one covers in part
			must(t, j.append(batch(100+i, 1, 1)))
		}
		j.begin()
		for i := range uint64(3) {
			must(t, j.append(batch(1+2*i, 2, 7)))
		}
		must(t, c.harm(j.f))
		again, ls := readJournal(t, dir)
		if last := lastOf(ls); last != c.last || len(ls) != int(c.last) {
			t.Errorf("%s: %d entries, the last is %d; want %d", c.what, len(ls), last, c.last)
		}
		if c.last == 2 {
			continue // what is whole behind it would not belong to what is appended now, and that is refused
		}
		must(t, again.append(batch(c.last+1, 1, 8)))
		if _, ls = readJournal(t, dir); lastOf(ls) != c.last+1 {
			t.Errorf("%s: after another append the last is %d, want %d", c.what, lastOf(ls), c.last+1)
		}
	}
}

func lastOf(ls []*raft.Log) uint64 {
	if len(ls) == 0 {
		return 0
	}
	return ls[len(ls)-1].Index
}

func TestAnErasedJournalIsEmpty(t *testing.T) {
	dir := t.TempDir()
	j, _ := readJournal(t, dir)
	must(t, j.append(batch(1, 3, 1)))
	must(t, j.erase())
	if _, ls := readJournal(t, dir); len(ls) > 0 {
		t.Errorf("%d entries", len(ls))
	}
}

// Records that are whole and do not belong together are not guessed about.
func TestADamagedJournalIsRefused(t *testing.T) {
	whole := func(ls []*raft.Log) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			j, _ := readJournal(t, dir)
			must(t, j.append(ls))
		}
	}
	for what, harm := range map[string]func(*testing.T, string){
		"a gap in a record":           whole(append(batch(4, 1, 1), batch(6, 1, 1)...)),
		"a gap to the log's end":      whole(batch(5, 1, 1)),
		"another term than the log's": whole(batch(3, 1, 2)),
		"entries that are none": func(t *testing.T, dir string) {
			j, _ := readJournal(t, dir)
			must(t, j.erase())
			must(t, j.append([]*raft.Log{{Index: 4, Data: []byte("abc")}}))
			raw, err := os.ReadFile(filepath.Join(dir, journalFile))
			must(t, err)
			raw[recordHeader+4] = 9 // the length of the data
			raw = raw[:recordHeader+int(raw[7])]
			sum := checksum(raw)
			raw[20], raw[21], raw[22], raw[23] = byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum)
			_, err = j.f.WriteAt(raw, 0)
			must(t, err)
		},
	} {
		dir := t.TempDir()
		db, err := openBolt(dir)
		must(t, err)
		must(t, db.StoreLogs(batch(1, 3, 1)))
		must(t, db.(*journaled).flush())
		must(t, db.Close())
		harm(t, dir)
		if db, err := openBolt(dir); !errors.Is(err, errJournalDamaged) {
			t.Errorf("%s: opened %v with %v, want %v", what, db, err, errJournalDamaged)
		}
	}
}

// crash copies what is on disk of a log to where it can be opened, as after a loss of power.
func crash(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	for _, name := range []string{dbFile, journalFile} {
		raw, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(to, name), raw, 0o600))
	}
	return to
}

// Whatever is done to a log, what it has is what was done to it, at once and after a crash at any moment.
func TestAJournaledLogIsALog(t *testing.T) {
	for seed := range uint64(6) {
		dice := rand.New(rand.NewPCG(seed, 1))
		dir := t.TempDir()
		db, err := openBolt(dir)
		must(t, err)
		var want []*raft.Log
		term := uint64(1)
		check := func(db backend, what string) {
			t.Helper()
			first, err := db.FirstIndex()
			must(t, err)
			last, err := db.LastIndex()
			must(t, err)
			var got []*raft.Log
			for i := first; i <= last && i > 0; i++ {
				var l raft.Log
				must(t, db.GetLog(i, &l))
				l.AppendedAt = time.Unix(0, l.AppendedAt.UnixNano())
				got = append(got, &l)
			}
			if !slices.EqualFunc(want, got, func(a, b *raft.Log) bool {
				return a.Index == b.Index && a.Term == b.Term && a.AppendedAt.Equal(b.AppendedAt) && bytes.Equal(a.Data, b.Data)
			}) {
				t.Fatalf("seed %d, after %s: %d entries, the last is %d; want %d, %d", seed, what, len(got), lastOf(got), len(want), lastOf(want))
			}
			if err := db.GetLog(last+1, &raft.Log{}); !errors.Is(err, raft.ErrLogNotFound) {
				t.Fatalf("seed %d, after %s: an entry behind the last: %v", seed, what, err)
			}
		}
		next := uint64(1 + dice.IntN(5))
		for range 60 {
			what := ""
			switch n := len(want); dice.IntN(8) {
			default:
				ls := batch(next, 1+dice.IntN(4), term)
				if dice.IntN(20) == 0 {
					ls[0].Data = bytes.Repeat([]byte{1}, journalRoom/2+dice.IntN(journalRoom)) // it fills the journal, or does not fit
				}
				what = fmt.Sprintf("append of %d at %d", len(ls), next)
				must(t, db.StoreLogs(ls))
				want, next = append(want, ls...), next+uint64(len(ls))
			case 0:
				what = "flush"
				must(t, db.(*journaled).flush())
			case 1, 2: // another leader has other entries
				if n > 0 {
					at := dice.IntN(n)
					what = fmt.Sprintf("deletion from %d on", want[at].Index)
					must(t, db.DeleteRange(want[at].Index, want[n-1].Index))
					want, next, term = want[:at:at], want[at].Index, term+1
				}
			case 3: // a snapshot
				if n > 0 {
					at := dice.IntN(n + 1)
					if at > 0 {
						what = fmt.Sprintf("deletion up to %d", want[at-1].Index)
						must(t, db.DeleteRange(want[0].Index, want[at-1].Index))
						want = slices.Clone(want[at:])
					}
					if at == n {
						next += uint64(dice.IntN(3)) // which came from the leader
					}
				}
			case 4:
				what = "opening it again"
				must(t, db.Close())
				db, err = openBolt(dir)
				must(t, err)
			}
			if len(want) == 0 {
				want = nil
			}
			check(db, what)
			if dice.IntN(4) == 0 {
				after, err := openBolt(crash(t, dir))
				must(t, err)
				check(after, what+" and a crash")
				must(t, after.Close())
			}
		}
		must(t, db.Close())
	}
}

// The database gets what is in the journal by itself.
func TestTheJournalIsFlushed(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	must(t, s.StoreLogs(entries(1, 2, 10)))
	db := s.log.back.(*journaled)
	if last, err := db.backend.LastIndex(); err != nil || last != 0 || !db.unflushed() {
		t.Errorf("the database has entry %d at once, %v", last, err)
	}
	eventually(t, "nothing is left to be flushed", func() bool { return !db.unflushed() })
	if last, err := db.backend.LastIndex(); err != nil || last != 2 {
		t.Errorf("the last entry of the database is %d, %v; want 2", last, err)
	}
}

// inJournal appends entries that the database does not get unless somebody flushes the journal, and returns the log.
func inJournal(t *testing.T, s *store, ls []*raft.Log) *journaled {
	t.Helper()
	s.log.later.Stop()
	must(t, s.StoreLogs(ls))
	s.log.later.Stop()
	return s.log.back.(*journaled)
}

// deaf is a database that takes no entries.
type deaf struct {
	backend
	err error
}

func (d *deaf) StoreLogs([]*raft.Log) error { return d.err }

// A database that takes nothing is reported, and costs no append as long as the journal has room. It is tried again.
func TestADatabaseThatTakesNothing(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	db := inJournal(t, s, entries(1, 2, 10))
	db.backend = &deaf{db.backend, errDisk}
	open := s.log.open
	s.log.open = func() (backend, error) {
		fresh, err := open()
		if err == nil {
			fresh.(*journaled).backend = &deaf{fresh.(*journaled).backend, errDisk}
		}
		return fresh, err
	}
	s.log.flush()
	if a := s.log.ails(); a == nil || a.op != opFlush {
		t.Errorf("reported is %v", a)
	}
	must(t, s.StoreLogs(entries(3, 2, 10)))
	if a := s.log.ails(); a == nil || a.op != opFlush {
		t.Errorf("an append has shown that the database works: reported is %v", a)
	}
	s.log.open = open
	eventually(t, "the database has all", func() bool { left, _ := read(s.log, unflushed); return !left && s.log.ails() == nil })
	if last, err := s.log.back.(*journaled).backend.LastIndex(); err != nil || last != 4 {
		t.Errorf("the last entry of the database is %d, %v; want 4", last, err)
	}
}

// A flush that failed is over when the database has the entries, by whatever write that was.
func TestAFlushThatIsNotNeededAnyMore(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	db := inJournal(t, s, entries(1, 2, 10))
	s.log.note(&s.log.unmoved, &trouble{op: opFlush, text: "fails", since: time.Now()})
	must(t, s.StoreLogs(entries(3, 1, journalRoom))) // more than the journal takes
	if db.unflushed() {
		t.Fatal("an append that found the journal full has not flushed it")
	}
	eventually(t, "the trouble is over", func() bool { return s.log.ails() == nil })
}

// FuzzParseJournal reads any bytes as a journal, and as the entries of a record, which its checksum would keep from the parser. What
// they yield can be written and read again. The seeds are no longer than a record: the fuzzer makes long ones shorter for minutes.
func FuzzParseJournal(f *testing.F) {
	for _, ls := range [][]*raft.Log{batch(1, 2, 3), {{Index: 9, Type: raft.LogNoop, Extensions: []byte("x")}}} {
		dir := f.TempDir()
		j, _, err := openJournal(dir)
		must(f, err)
		must(f, j.append(ls))
		must(f, j.f.Close())
		raw, err := os.ReadFile(filepath.Join(dir, journalFile))
		must(f, err)
		body := appendEntries(nil, ls)
		f.Add(raw[:recordHeader+len(body)])
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var j journal
		if ls, err := j.parse(raw); err == nil {
			if j.at > int64(len(raw))+journalBlock || int(j.next) > len(raw)/recordHeader {
				t.Errorf("it ends at %d of %d, after %d records", j.at, len(raw), j.next)
			}
			sameAgain(t, ls)
		}
		if ls, err := parseEntries(raw); err == nil {
			sameAgain(t, ls)
		}
	})
}

func sameAgain(t *testing.T, ls []*raft.Log) {
	t.Helper()
	again, err := parseEntries(appendEntries(nil, ls))
	must(t, err)
	if diff := cmp.Diff(ls, again); diff != "" {
		t.Errorf("(-first +again)\n%s", diff)
	}
}

// stuck is a database that takes entries once it is let go on.
type stuck struct {
	backend
	goOn chan struct{}
}

func (s *stuck) StoreLogs(ls []*raft.Log) error {
	<-s.goOn
	return s.backend.StoreLogs(ls)
}

// A leader whose journal is not flushed, because its disk stands still, goes on: there may be no other that could lead. Only when an
// append waits for that as well has it to be silent.
func TestAFlushThatHangsCostsNoLeader(t *testing.T) {
	s, err := openStore(t.TempDir(), openBolt, 50*time.Millisecond, slog.New(slog.DiscardHandler))
	must(t, err)
	defer s.Close()
	db := inJournal(t, s, entries(1, 2, 10))
	hangs := &stuck{db.backend, make(chan struct{})}
	db.backend = hangs
	flushed, appended := make(chan struct{}), make(chan error, 1)
	go func() { defer close(flushed); s.log.flush() }()
	eventually(t, "it is reported", func() bool { a := s.log.ails(); return a != nil && a.op == opFlush })
	if s.log.standsStill() {
		t.Error("a leader would fall silent because of a flush")
	}
	go func() { appended <- s.StoreLogs(entries(3, 1, 10)) }()
	eventually(t, "an append that does not end makes a leader silent", s.log.standsStill)
	close(hangs.goOn)
	<-flushed
	must(t, <-appended)
	if a := s.log.ails(); a != nil || s.log.standsStill() {
		t.Errorf("once all is written %v is reported", a)
	}
}
