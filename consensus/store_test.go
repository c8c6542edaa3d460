package consensus

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func testStore(t *testing.T, dir string) *store {
	t.Helper()
	s, err := openStore(dir, openBolt, time.Minute, slog.New(slog.DiscardHandler))
	must(t, err)
	return s
}

func TestTermsAndVotesOnlyRise(t *testing.T) {
	dir := t.TempDir()
	s := testStore(t, dir)
	vote := func(term uint64, candidate string) error {
		if err := s.SetUint64([]byte(keyVoteTerm), term); err != nil {
			return err
		}
		return s.Set([]byte(keyVoteCand), []byte(candidate))
	}
	must(t, s.SetUint64([]byte(keyTerm), 5))
	must(t, vote(5, "a"))
	must(t, vote(5, "a"))
	if err := vote(5, "b"); err == nil {
		t.Error("two votes in one term")
	}
	must(t, s.SetUint64([]byte(keyTerm), 7))
	must(t, s.SetUint64([]byte(keyTerm), 6)) // what a late heartbeat may do
	if s.Term() != 7 {
		t.Errorf("the term is %d after it was 7", s.Term())
	}
	if err := vote(6, "b"); !errors.Is(err, errOldVote) {
		t.Errorf("vote in term 6 after term 7: %v, want %v", err, errOldVote)
	}
	must(t, vote(7, "b"))
	must(t, s.Close())

	s = testStore(t, dir)
	defer s.Close()
	term, err := s.GetUint64([]byte(keyTerm))
	must(t, err)
	voted, err := s.GetUint64([]byte(keyVoteTerm))
	must(t, err)
	candidate, err := s.Get([]byte(keyVoteCand))
	must(t, err)
	if term != 7 || voted != 7 || string(candidate) != "b" || s.Term() != 7 {
		t.Errorf("read back term %d (%d), vote %d for %q; want 7, 7 for b", term, s.Term(), voted, candidate)
	}
}

func TestHalfAVoteLeavesNoTrace(t *testing.T) {
	dir := t.TempDir()
	s := testStore(t, dir)
	must(t, s.SetUint64([]byte(keyTerm), 1))
	must(t, s.SetUint64([]byte(keyVoteTerm), 1))
	must(t, s.Set([]byte(keyVoteCand), []byte("a")))
	must(t, s.SetUint64([]byte(keyTerm), 2))
	must(t, s.SetUint64([]byte(keyVoteTerm), 2)) // and then the power fails
	must(t, s.Close())
	s = testStore(t, dir)
	defer s.Close()
	if voted, _ := s.GetUint64([]byte(keyVoteTerm)); voted != 1 {
		t.Errorf("the vote is of term %d, want 1", voted)
	}
}

// A new leader's entries take the place of what an old one could not commit. That must not harm what is before them.
func TestRestartAfterASuffixWasCleared(t *testing.T) {
	dir := t.TempDir()
	s := testStore(t, dir)
	must(t, s.StoreLogs(entries(1, 5, 100)))
	must(t, s.DeleteRange(4, 5))
	must(t, s.StoreLogs(entries(4, 1, 50)))
	must(t, s.Close())
	s = testStore(t, dir)
	defer s.Close()
	last, err := s.LastIndex()
	must(t, err)
	if last != 4 {
		t.Errorf("the last entry is %d, want 4", last)
	}
	for i := uint64(1); i <= last; i++ {
		must(t, s.GetLog(i, &raft.Log{}))
	}
}

func TestDeletedEntriesAreNotFound(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	for i := range uint64(10) {
		must(t, s.StoreLog(&raft.Log{Index: i + 1, Term: 1}))
	}
	must(t, s.DeleteRange(1, 6))
	var l raft.Log
	for i := range uint64(10) {
		if err := s.GetLog(i+1, &l); (err == nil) != (i+1 > 6) {
			t.Errorf("entry %d: %v", i+1, err)
		}
	}
	if p50, p99 := s.appends.percentiles(); p50 <= 0 || p99 < p50 {
		t.Errorf("appends took %v and %v", p50, p99)
	}
}

func TestServerIDBelongsToOneName(t *testing.T) {
	dir := t.TempDir()
	a, err := serverID(dir, "db1")
	must(t, err)
	b, err := serverID(dir, "db1")
	must(t, err)
	if a != b || nodeOf(a) != "db1" {
		t.Errorf("server IDs %q and %q", a, b)
	}
	if _, err := serverID(dir, "db2"); err == nil {
		t.Error("another node took the state directory over")
	}
}
