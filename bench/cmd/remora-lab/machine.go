package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-ha/remora/bench/lab"
)

// recordMachine adds to the directory of the figures what they are measured on and of which programs, unless the call before it was
// on the same day and all is as it was.
func recordMachine(dir string, l *lab.Lab) error {
	path := filepath.Join(dir, machineFile)
	line := machine(l.Remora(), l.Dir())
	before, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err == nil && !strings.HasSuffix(string(before), line+"\n") {
		err = os.WriteFile(path, append(before, line+"\n"...), 0o644)
	}
	if err != nil {
		return fmt.Errorf("record the machine: %w", err)
	}
	return nil
}

// recordedMachine returns what was recorded with the figures, a line for each set of programs that had a part in them.
func recordedMachine(dir string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, machineFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "What these runs were measured on was not recorded with them.", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the record of the machine: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// machine names the day, this machine, the build of Remora in a file, the systems that it is compared with, and the file system of
// the daemons' state, which is in a directory.
func machine(remora, state string) string {
	lines := []string{fmt.Sprintf("Measured on %s. Linux %s, %d processors%s, %s of memory, state on %s.", time.Now().Format(time.DateOnly),
		release(), runtime.NumCPU(), processor(), memory(), fileSystemOf(state))}
	for _, c := range [][]string{{remora, "version"}, {"keepalived", "--version"}, {"ucarp", "--help"}, {"masterha_manager", "--version"},
		{"mariadbd", "--no-defaults", "--version"}} {
		lines = append(lines, said(c[0], c[1:]...)+".")
	}
	return strings.Join(lines, " ")
}

// said returns the first line that a command prints, or why there is none.
func said(name string, args ...string) string {
	text, err := exec.Command(name, args...).CombinedOutput()
	first, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	if first == "" && err != nil {
		return fmt.Sprintf("%s: unknown (%v)", filepath.Base(name), err)
	}
	return strings.TrimSuffix(first, ".")
}

func release() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

func processor() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	_, rest, found := strings.Cut(string(text), "model name")
	if !found {
		return ""
	}
	line, _, _ := strings.Cut(rest, "\n")
	return " (" + strings.Trim(line, "\t :") + ")"
}

func memory() string {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return "unknown"
	}
	return fmt.Sprintf("%.1f GiB", float64(info.Totalram)*float64(info.Unit)/(1<<30))
}

// fileSystemOf returns the kind of the file system that a directory is on.
func fileSystemOf(dir string) string {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return "an unknown file system"
	}
	return mountedAt(string(text), dir)
}

// mountedAt returns the kind of the file system with a path, by the text of /proc/self/mountinfo, proc(5). Of two that are mounted at
// the same place the later one counts.
func mountedAt(mountinfo, path string) string {
	kind, longest := "an unknown file system", 0
	for line := range strings.Lines(mountinfo) {
		f := strings.Fields(line)
		dash := slices.Index(f, "-")
		if dash < 5 || dash+1 >= len(f) {
			continue
		}
		at := f[4]
		if within := path == at || strings.HasPrefix(path, strings.TrimSuffix(at, "/")+"/"); within && len(at) >= longest {
			kind, longest = f[dash+1], len(at)
		}
	}
	return kind
}
