package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// stateFile is the name of the file in a laboratory's directory that says what has to be removed.
const stateFile = "state.json"

// state is what a laboratory has put into the machine. It is written before the thing it names comes into being,
// except for processes, whose ids are known only after; those are found by their namespace.
type state struct {
	Name       string      `json:"name"`
	Owner      processID   `json:"owner"` // the process that runs the laboratory
	Kept       bool        `json:"kept"`  // left up on purpose
	Namespaces []string    `json:"namespaces"`
	Processes  []processID `json:"processes"`
}

// record keeps a state file.
type record struct {
	dir string
	mu  sync.Mutex
	st  state
}

// update changes the state and writes it.
func (r *record) update(change func(*state)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.st)
	text, err := json.MarshalIndent(r.st, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the laboratory's state: %w", err)
	}
	tmp := filepath.Join(r.dir, stateFile+".new")
	if err := os.WriteFile(tmp, text, 0o644); err != nil {
		return fmt.Errorf("record the laboratory's state: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(r.dir, stateFile)); err != nil {
		return fmt.Errorf("record the laboratory's state: %w", err)
	}
	return nil
}

// addProcess records a process that was just started and forgets those that have ended.
func (r *record) addProcess(p *Process) error {
	id, err := identify(p.Pid(), p.What)
	if err != nil {
		return nil // it has ended already
	}
	return r.update(func(s *state) {
		s.Processes = slices.DeleteFunc(s.Processes, func(id processID) bool { return !id.alive() })
		s.Processes = append(s.Processes, id)
	})
}

// DefaultRoot returns the directory under which laboratories keep their files.
func DefaultRoot() string { return filepath.Join(os.TempDir(), "remora-lab") }

// Info describes a laboratory that has a directory under a root.
type Info struct {
	Name       string
	Dir        string
	Kept       bool
	Alive      bool // its process still runs
	Namespaces []string
}

// List returns the laboratories under root.
func List(root string) ([]Info, error) {
	paths, err := filepath.Glob(filepath.Join(root, "*", stateFile))
	if err != nil {
		return nil, fmt.Errorf("list laboratories: %w", err)
	}
	var infos []Info
	for _, path := range paths {
		st, err := readState(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // somebody is just removing it
		}
		if err != nil {
			return infos, err
		}
		infos = append(infos, Info{Name: st.Name, Dir: filepath.Dir(path), Kept: st.Kept, Alive: st.Owner.alive(),
			Namespaces: st.Namespaces})
	}
	return infos, nil
}

func readState(path string) (state, error) {
	var st state
	text, err := os.ReadFile(path)
	if err != nil {
		return st, fmt.Errorf("read a laboratory's state: %w", err)
	}
	if err := json.Unmarshal(text, &st); err != nil {
		return st, fmt.Errorf("read a laboratory's state in %s: %w", path, err)
	}
	return st, nil
}

// Sweep removes what crashed runs left under root: laboratories whose process is gone and that were not kept on
// purpose. It returns the names of those that it removed.
func Sweep(root string) ([]string, error) {
	return sweep(root, func(i Info) bool { return !i.Kept && !i.Alive })
}

// SweepAll removes every laboratory under root that no living process runs, also those that were kept.
func SweepAll(root string) ([]string, error) {
	return sweep(root, func(i Info) bool { return !i.Alive })
}

func sweep(root string, take func(Info) bool) ([]string, error) {
	unlock, err := lockRoot(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // no laboratory was ever here
	}
	if err != nil {
		return nil, err
	}
	defer unlock()
	infos, err := List(root)
	errs := []error{err}
	var removed []string
	for _, info := range infos {
		if !take(info) {
			continue
		}
		if err := demolish(info.Dir); err != nil {
			errs = append(errs, fmt.Errorf("remove laboratory %s: %w", info.Name, err))
			continue
		}
		removed = append(removed, info.Name)
	}
	return removed, errors.Join(errs...)
}

// lockRoot keeps two sweeps of one root apart.
func lockRoot(root string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(root, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the laboratories: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock the laboratories in %s: %w", root, err)
	}
	return func() { f.Close() }, nil
}

// demolish removes everything that the state file in dir names, and then dir.
func demolish(dir string) error {
	st, err := readState(filepath.Join(dir, stateFile))
	if err != nil {
		return err
	}
	const patience = 20 * time.Second // a server with a full buffer pool takes its time to die
	var errs []error
	for _, id := range st.Processes {
		errs = append(errs, thawBelow(dir), id.kill(patience)) // what waits for a frozen disk can not be killed
	}
	for _, name := range st.Namespaces {
		errs = append(errs, removeNamespace(name, patience))
	}
	if err := errors.Join(errs...); err != nil {
		return err // the state file stays, for the next sweep
	}
	if err := unmountBelow(dir); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// removeNamespace ends the processes inside the namespace, which are descendants of the laboratory's, and removes it.
func removeNamespace(name string, patience time.Duration) error {
	if _, err := os.Stat(filepath.Join(netnsDir, name)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	ids, err := processesIn(name)
	errs := []error{err}
	for _, id := range ids {
		errs = append(errs, id.kill(patience))
	}
	errs = append(errs, run(context.Background(), "", "ip", "netns", "del", name))
	return errors.Join(errs...)
}

// processesIn returns the processes in a namespace, without this one.
func processesIn(name string) ([]processID, error) {
	var want, got unix.Stat_t
	if err := unix.Stat(filepath.Join(netnsDir, name), &want); err != nil {
		return nil, fmt.Errorf("look at network namespace %s: %w", name, err)
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var ids []processID
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == os.Getpid() || unix.Stat(dir+"/ns/net", &got) != nil {
			continue
		}
		if got.Ino == want.Ino && got.Dev == want.Dev {
			if id, err := identify(pid, "a process in "+name); err == nil {
				ids = append(ids, id)
			}
		}
	}
	return ids, nil
}

// run runs a program with the given input and returns an error that holds its first line of output.
func run(ctx context.Context, input, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	if input != "" {
		cmd.Stdin = strings.NewReader(input)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run %s %s: %w: %s", name, strings.Join(args, " "), err, firstLine(out))
	}
	return nil
}

func firstLine(out []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}
