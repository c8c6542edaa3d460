package config

import (
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
)

const daemonUser, daemonGroup = 990, 980

// ownedMachine is a good machine whose files belong to the daemon's user, as root sees it.
func ownedMachine(t *testing.T) *machine {
	t.Helper()
	m := goodMachine(t)
	m.user = 0
	m.files["var/lib/remora"] = &fstest.MapFile{Mode: fs.ModeDir | 0o700}
	for _, name := range []string{"var/lib/remora", "etc/remora/ca.pem", "etc/remora/node.pem", "etc/remora/node.key", "etc/remora/mysql.password"} {
		m.files[name].Sys = owned(daemonUser, daemonGroup)
	}
	return m
}

func owned(user, group uint32) *syscall.Stat_t { return &syscall.Stat_t{Uid: user, Gid: group} }

// Root is told which files the daemon's user could not read, as far as that is certain. That user finds it out by itself.
func TestRootIsToldWhatTheDaemonCanNotRead(t *testing.T) {
	const root, other = 0, 50
	const key, password = "etc/remora/node.key", "etc/remora/mysql.password"
	for name, c := range map[string]struct {
		file        string
		user, group uint32
		mode        fs.FileMode
		warned      bool
	}{
		"the daemon's own":                  {key, daemonUser, daemonGroup, 0o600, false},
		"its own and closed":                {password, daemonUser, daemonGroup, 0o040, true},
		"root's":                            {key, root, root, 0o600, true},
		"root's, for the daemon's group":    {password, root, daemonGroup, 0o640, false},
		"root's, closed to this group":      {password, root, daemonGroup, 0o600, true},
		"root's, for root's group":          {password, root, root, 0o640, true},
		"root's, for a group it may be in":  {password, root, other, 0o640, false},
		"somebody's, closed to every group": {password, other, other, 0o600, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := ownedMachine(t)
			m.files[c.file].Sys, m.files[c.file].Mode = owned(c.user, c.group), c.mode
			problems := CheckHost(mustParse(t, okFile(t)), "db1", m)
			warned := strings.Contains(problems.Error(), "/"+c.file+" can not be read by user 990, to whom /var/lib/remora belongs")
			if warned != c.warned || len(problems.Errors()) > 0 || len(problems) > 1 {
				t.Errorf("%v", problems)
			}
		})
	}
}

// Nothing is said to the user itself, who finds out by reading, nor where nobody knows as whom the daemon runs.
func TestOnlyRootIsToldWhatTheDaemonCanNotRead(t *testing.T) {
	for name, change := range map[string]func(*machine){
		"to the user itself":                func(m *machine) { m.user = daemonUser },
		"where the directory is root's":     func(m *machine) { m.files["var/lib/remora"].Sys = owned(0, 0) },
		"where the directory is to be made": func(m *machine) { delete(m.files, "var/lib/remora") },
	} {
		m := ownedMachine(t)
		m.files["etc/remora/node.key"].Sys = owned(0, 0)
		change(m)
		if problems := CheckHost(mustParse(t, okFile(t)), "db1", m); len(problems) > 0 {
			t.Errorf("%s: %v", name, problems)
		}
	}
}
