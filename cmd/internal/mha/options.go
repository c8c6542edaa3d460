package mha

import (
	"cmp"
	"fmt"
	"strings"
)

// Options are the arguments of the scripts that do not move the address, by name. Secrets are not among them.
type Options map[string]string

// ParseOptions reads the arguments of secondary_check_script, shutdown_script and report_script.
func ParseOptions(args []string) Options {
	o := Options{}
	for len(args) > 0 {
		name, isOption := strings.CutPrefix(args[0], "--")
		args = args[1:]
		if !isOption {
			continue
		}
		name, value, joined := strings.Cut(name, "=")
		if !joined && len(args) > 0 && !strings.HasPrefix(args[0], "--") {
			value, args = args[0], args[1:]
		}
		if name = strings.ToLower(name); name != "" && !secret(name) && name != "options" {
			o[name] = Unescape(value)
		}
	}
	return o
}

// Own returns the options that say how the daemon is reached.
func (o Options) Own() Own {
	return Own{Group: o["remora-group"], Socket: o["socket"], Endpoint: o["endpoint"], CA: o["ca"], Cert: o["cert"], Key: o["key"]}
}

// State is what the daemons see of a server.
type State uint8

// The states.
const (
	// Undecided: too few daemons could be asked. An unknown is not an absence.
	Undecided State = iota
	// Alive: it answers somebody.
	Alive
	// Dead: it answers nobody, and most of those who were to ask did.
	Dead
)

// String returns the state in a few words.
func (s State) String() string {
	return [...]string{"not known, too few daemons could ask", "alive", "dead"}[s]
}

// CheckUnable is secondary_check's exit code when the question could not be asked; MHA starts its count anew.
const CheckUnable Exit = 2

// Exit returns the exit code of a secondary check: 0 lets MHA fail over, 3 says that the server is alive elsewhere.
func (s State) Exit() Exit {
	switch s {
	case Dead:
		return OK
	case Alive:
		return 3
	default:
		return CheckUnable
	}
}

// Verdict counts what the daemons have found out.
func Verdict(answered, silent, unreachable int) State {
	switch {
	case answered > 0:
		return Alive
	case silent > unreachable:
		return Dead
	default:
		return Undecided
	}
}

// ShutdownExit is the exit code of a shutdown whose stop is proven. With ssh it is never 0, which would make MHA skip saving
// the binlog of the dead server; 10 says that the server can do no harm and ssh works.
func ShutdownExit(c Command, s State, readOnly bool) Exit {
	harmless := s == Dead || s == Alive && readOnly
	switch {
	case harmless && c == StopSSH:
		return Proceed
	case harmless && c == Stop:
		return OK
	default:
		return Abort
	}
}

// ReportText is the line that a report leaves in the history.
func ReportText(o Options) string {
	text := fmt.Sprintf("MHA reports: %s (from %s to %s, replicas %s)", cmp.Or(o["subject"], "no subject"),
		cmp.Or(o["orig_master_host"], "nobody"), cmp.Or(o["new_master_host"], "nobody"), cmp.Or(o["new_slave_hosts"], "none"))
	const longest = 400
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > longest {
		text = strings.ToValidUTF8(text[:longest], "") + "..."
	}
	return text
}
