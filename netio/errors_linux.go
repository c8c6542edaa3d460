package netio

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// classify puts the sentinel beside an error number of the kernel for which there is one.
func classify(err error) error {
	for _, c := range []struct {
		errno    unix.Errno
		sentinel error
	}{
		{unix.EPERM, ErrPermission},
		{unix.ENODEV, ErrNoInterface},
		{unix.ENXIO, ErrNoInterface},
		{unix.ENETDOWN, ErrLinkDown},
	} {
		if errors.Is(err, c.errno) {
			return fmt.Errorf("%w (%w)", c.sentinel, err)
		}
	}
	if errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w: IPv6 may be switched off on the interface (sysctl net.ipv6.conf.*.disable_ipv6)", err)
	}
	return err
}
