package cli

import (
	"fmt"
	"os"
	"syscall"
)

// becomeOwner lets this process, if user is root, be the one to whom a directory belongs from now on and for good, so that what is
// written there belongs to that one. Any other user but the owner is refused.
func becomeOwner(dir string, user int) error {
	fi, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("see to whom the state directory belongs: %w", err)
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	switch {
	case !ok || int(st.Uid) == user:
		return nil
	case user != 0:
		return usagef("%s belongs to user %d, and this process is user %d: run it as root or as that user, or the daemon could not use what it writes",
			dir, st.Uid, user)
	}
	gid := int(st.Gid)
	if err := syscall.Setgroups([]int{gid}); err != nil {
		return fmt.Errorf("leave the groups of root: %w", err)
	}
	if err := syscall.Setgid(gid); err != nil {
		return fmt.Errorf("become group %d, to which %s belongs: %w", gid, dir, err)
	}
	if err := syscall.Setuid(int(st.Uid)); err != nil {
		return fmt.Errorf("become user %d, to whom %s belongs: %w", st.Uid, dir, err)
	}
	return nil
}
