package consensus

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/remora-ha/remora/core"
)

// The files and directories inside the state directory.
const (
	lockFile = "lock"
	idFile   = "server-id"
	logDir   = "log"
)

// ErrInUse is returned by Open when another process works in the state directory.
var ErrInUse = errors.New("the state directory is in use by another process")

// prepareDir creates the state directory, makes it private and takes its lock.
func prepareDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Join(dir, logDir), 0o700); err != nil {
		return nil, fmt.Errorf("create the state directory: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the state directory private: %w", err)
	}
	return lock(filepath.Join(dir, lockFile))
}

// serverID returns the Raft server ID of this state directory: the node's name, '#' and a random number. It is made
// once. A node that was set up anew has another one, and so can not be taken for the one that had voted under its name.
func serverID(dir string, self core.NodeName) (raft.ServerID, error) {
	path := filepath.Join(dir, idFile)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return newServerID(path, self)
	}
	if err != nil {
		return "", fmt.Errorf("read the Raft server ID: %w", err)
	}
	id := raft.ServerID(strings.TrimSpace(string(raw)))
	if nodeOf(id) != self {
		return "", fmt.Errorf("%s holds the state of %q, but this node is %q: correct the node's name, or move the directory away to start it anew",
			path, id, self)
	}
	return id, nil
}

func newServerID(path string, self core.NodeName) (raft.ServerID, error) {
	var b [4]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("make a Raft server ID: %w", err)
	}
	id := string(self) + "#" + hex.EncodeToString(b[:])
	if err := writeFile(path, []byte(id+"\n")); err != nil {
		return "", fmt.Errorf("keep the Raft server ID: %w", err)
	}
	return raft.ServerID(id), nil
}

// nodeOf returns the node's name in a Raft server ID, empty if the ID is malformed.
func nodeOf(id raft.ServerID) core.NodeName {
	i := strings.LastIndexByte(string(id), '#')
	if i < 1 || len(id)-i-1 != 8 {
		return ""
	}
	return core.NodeName(id[:i])
}

// writeFile replaces a file so that after a crash either the old or the new contents are there in full.
func writeFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
