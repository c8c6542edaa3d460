package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// FIFREEZE and FITHAW of include/uapi/linux/fs.h: a frozen file system keeps every write waiting.
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

// mountState puts the state directory of the node's daemon on a file system of its own, in a file beside it.
func (n *Node) mountState(ctx context.Context, mib int) error {
	image := filepath.Join(n.dir, "state.img")
	f, err := os.OpenFile(image, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err == nil {
		err = errors.Join(f.Truncate(int64(mib)<<20), f.Close())
	}
	if err == nil {
		err = run(ctx, "", "mkfs.ext4", "-q", "-F", "-m", "0", image)
	}
	if err == nil {
		err = run(ctx, "", "mount", "-o", "loop", image, n.StateDir())
	}
	if err != nil {
		return fmt.Errorf("put the state of %s on a file system of its own: %w", n.Name, err)
	}
	return os.Chmod(n.StateDir(), 0o700)
}

// FillState takes what room is left in the state directory's file system. The function that it returns gives it back.
func (n *Node) FillState() (free func() error, err error) {
	path := filepath.Join(n.StateDir(), "filler")
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	n.lab.note(Event{Source: SourceLab, Node: n.Name, What: "state directory filled"})
	for block := make([]byte, 64<<10); len(block) > 0; {
		if _, err := f.Write(block); err != nil {
			block = block[:len(block)/2]
		}
	}
	return func() error {
		n.lab.note(Event{Source: SourceLab, Node: n.Name, What: "state directory has room again"})
		return os.Remove(path)
	}, f.Close()
}

// FreezeState has every write to the state directory's file system wait until ThawState.
func (n *Node) FreezeState() error {
	n.lab.note(Event{Source: SourceLab, Node: n.Name, What: "state directory frozen"})
	return ioctlDir(n.StateDir(), fiFreeze)
}

// ThawState ends what FreezeState began.
func (n *Node) ThawState() error {
	n.lab.note(Event{Source: SourceLab, Node: n.Name, What: "state directory thawed"})
	return ioctlDir(n.StateDir(), fiThaw)
}

func ioctlDir(dir string, request uint) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	if err := unix.IoctlSetInt(fd, request, 0); err != nil {
		return errors.Join(&os.PathError{Op: "ioctl", Path: dir, Err: err}, unix.Close(fd))
	}
	return unix.Close(fd)
}

// thawBelow thaws what is mounted below a directory.
func thawBelow(dir string) error {
	points, err := mountedBelow(dir)
	for _, p := range points {
		_ = ioctlDir(p, fiThaw) // most are not frozen
	}
	return err
}

// unmountBelow unmounts what is mounted below a directory.
func unmountBelow(dir string) error {
	points, err := mountedBelow(dir)
	errs := []error{err}
	for _, p := range slices.Backward(points) {
		if err := unix.Unmount(p, unix.MNT_DETACH); err != nil {
			errs = append(errs, &os.PathError{Op: "unmount", Path: p, Err: err})
		}
	}
	return errors.Join(errs...)
}

// mountedBelow returns the mount points below a directory.
func mountedBelow(dir string) ([]string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var points []string
	for line := range strings.Lines(string(text)) {
		// proc(5): the mount point is the fifth field, blanks in it are written as \040.
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			points = append(points, fields[4])
		}
	}
	return points, nil
}
