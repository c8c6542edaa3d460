package consensus

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

// formerFile is in the directory of a log that a build before the first release has kept in another format.
const formerFile = "wal-meta.db"

// ErrFormerLog means that the state directory holds a Raft log that this release does not read.
var ErrFormerLog = errors.New("the Raft log is of a build before the first release")

// refuseFormer keeps a node that has a log from taking itself for an empty one: it would vote, and count, as the server
// that it was, without knowing what that has promised.
func refuseFormer(dir string) error {
	switch _, err := os.Stat(filepath.Join(dir, formerFile)); {
	case err == nil:
		return fmt.Errorf("%w (%s): stop remora here, move the whole state directory away and start it, one node after the other, "+
			"each when the one before votes again", ErrFormerLog, dir)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	default:
		return fmt.Errorf("look into the Raft log's directory: %w", err)
	}
}

func openBolt(dir string) (backend, error) {
	b, err := raftboltdb.New(raftboltdb.Options{Path: filepath.Join(dir, dbFile), MsgpackUseNewTimeFormat: true,
		// The list of free pages is found again at the start, which is quick with so few.
		BoltOptions: &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, InitialMmapSize: dbRoom, Timeout: lockWait}})
	if err != nil {
		return nil, fmt.Errorf("open the Raft log in %s: %w", dir, err)
	}
	j, err := openJournaled(dir, boltStore{b})
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return j, nil
}

// lockWait bounds the wait for the database's lock. The state directory has one of its own, which was taken before.
const lockWait = time.Second

// boltStore reads what was never written as empty.
type boltStore struct{ *raftboltdb.BoltStore }

func (b boltStore) Get(key []byte) ([]byte, error) {
	v, err := b.BoltStore.Get(key)
	if errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return nil, nil
	}
	return v, err
}

func (b boltStore) GetUint64(key []byte) (uint64, error) {
	v, err := b.BoltStore.GetUint64(key)
	if errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return 0, nil
	}
	return v, err
}
