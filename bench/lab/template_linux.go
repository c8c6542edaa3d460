package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
)

// serverUser is the system user that servers run as.
const serverUser = "nobody"

// keepTemplate returns a data directory that is kept under root for later laboratories, by a digest of what it depends on,
// and makes it when there is none yet.
func keepTemplate(root, name, depends string, install func(data string) error) (string, error) {
	sum := sha256.Sum256([]byte(depends))
	dir := filepath.Join(root, "."+name+"-"+hex.EncodeToString(sum[:6]))
	data := filepath.Join(dir, "data")
	if exists(data) {
		return data, nil
	}
	tmp, err := os.MkdirTemp(root, ".new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if err := ownDir(serverUser, tmp); err != nil {
		return "", err
	}
	if err := install(filepath.Join(tmp, "data")); err != nil {
		return "", err
	}
	// Somebody else may have made it meanwhile: theirs is as good.
	if err := os.Rename(tmp, dir); err != nil && !exists(data) {
		return "", err
	}
	return data, nil
}

// ownDir makes a directory that belongs to a system user.
func ownDir(name, dir string) error {
	u, err := user.Lookup(name)
	if err != nil {
		return fmt.Errorf("find the servers' user: %w", err)
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	return errors.Join(err1, err2, os.MkdirAll(dir, 0o755), os.Chmod(dir, 0o755), os.Chown(dir, uid, gid))
}

// copyData gives a server a copy of a prepared data directory.
func copyData(ctx context.Context, tmpl string, s ServerSpec) error {
	if err := ownDir(serverUser, s.Dir); err != nil {
		return err
	}
	if err := run(ctx, "", "cp", "-a", "--sparse=always", tmpl, filepath.Join(s.Dir, "data")); err != nil {
		return fmt.Errorf("copy the data directory: %w", err)
	}
	return nil
}
