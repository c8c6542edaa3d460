package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// Exec replaces this process by a command inside a host of a laboratory that is up. On a node the command finds the
// daemon by REMORA_SOCKET. It returns only if it failed.
func Exec(info Info, host string, args []string) error {
	name := info.Name + "-" + host
	if !slices.Contains(info.Namespaces, name) {
		return fmt.Errorf("laboratory %s has no host %q; it has the namespaces %v", info.Name, host, info.Namespaces)
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return fmt.Errorf("find the command: %w", err)
	}
	ns, err := openNamespace(name)
	if err != nil {
		return err
	}
	env := os.Environ()
	if socket := filepath.Join(info.Dir, host, "remora.sock"); exists(socket) {
		env = append(env, "REMORA_SOCKET="+socket)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Setns(ns.fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w (are you root?)", name, err)
	}
	if err := unix.Exec(path, args, env); err != nil {
		return fmt.Errorf("run %s in %s: %w", path, name, err)
	}
	return nil
}
