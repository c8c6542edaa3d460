package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheFileSystemIsThatOfTheNearestMount(t *testing.T) {
	const mounts = `22 1 254:0 / / rw,relatime - ext4 /dev/root rw
30 22 0:25 / /tmp rw,nosuid shared:5 master:1 - tmpfs tmpfs rw
31 30 0:26 / /tmp/state rw - xfs /dev/vdb rw
32 30 0:27 / /tmp/state rw - btrfs /dev/vdc rw
broken
`
	for path, want := range map[string]string{"/var/lib": "ext4", "/": "ext4", "/tmp": "tmpfs", "/tmp/lab/db1": "tmpfs", "/tmpfoo": "ext4",
		"/tmp/state": "btrfs", "/tmp/state/db1": "btrfs"} {
		if got := mountedAt(mounts, path); got != want {
			t.Errorf("%s is on %s, want %s", path, got, want)
		}
	}
	if got := mountedAt("", "/tmp"); got != "an unknown file system" {
		t.Errorf("without mounts: %s", got)
	}
}

func TestTheMachineIsDescribed(t *testing.T) {
	remora := filepath.Join(t.TempDir(), "remora")
	if err := os.WriteFile(remora, []byte("#!/bin/sh\necho remora v1-abc\necho more\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	text := machine(remora, t.TempDir())
	for _, want := range []string{"Linux ", " GiB of memory, state on ", "remora v1-abc.", "ucarp", "eepalived"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in %q", want, text)
		}
	}
	for _, no := range []string{"more", "unknown file", "\n"} {
		if strings.Contains(text, no) {
			t.Errorf("%q is in %q", no, text)
		}
	}
	if got := said(filepath.Join(t.TempDir(), "absent"), "--version"); !strings.HasPrefix(got, "absent: unknown") {
		t.Errorf("a program that is not there: %q", got)
	}
}
