package mha

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// Hook is the script whose place is taken.
type Hook uint8

// The hooks that decide where the address is.
const (
	Failover Hook = iota + 1
	OnlineChange
)

// String returns the name of the hook in app1.cnf, without its ending.
func (h Hook) String() string {
	switch h {
	case Failover:
		return "master_ip_failover"
	case OnlineChange:
		return "master_ip_online_change"
	default:
		return "no hook"
	}
}

// HookOf returns the hook that a program was called as, by the last part of its path. People keep endings such as .pl
// and _script.
func HookOf(program string) (Hook, bool) {
	name := program[strings.LastIndexByte(program, '/')+1:]
	switch {
	case strings.HasPrefix(name, "master_ip_failover"):
		return Failover, true
	case strings.HasPrefix(name, "master_ip_online_change"):
		return OnlineChange, true
	}
	return 0, false
}

// Command is what a hook is asked to do.
type Command string

// The commands. StopSSH is MHA's word for a stop while the old primary's host can still be reached by ssh.
const (
	Status  Command = "status"
	Stop    Command = "stop"
	StopSSH Command = "stopssh"
	Start   Command = "start"
)

// Server is a MySQL server as MHA names it. Host is what app1.cnf says, IP its first address; either may be empty.
type Server struct {
	Host string
	IP   string
	// Port is 0 if it was not given.
	Port uint16
}

// String returns the host, or the address if there is no name.
func (s Server) String() string { return cmp.Or(s.Host, s.IP, "nobody") }

// Call is one call of a hook.
type Call struct {
	Command Command
	// Old is the primary whose time is over, New the one that shall follow it. By hand only one of the two may be known.
	Old, New Server
	// OldIsReplica is set when the old primary shall become a replica of the new one.
	OldIsReplica bool
	// DryRun asks to say what would be done, and to do nothing.
	DryRun bool
	// Own are the options that are Remora's and not MHA's.
	Own Own
	// Ignored lists the names of arguments that were not understood, in their order.
	Ignored []string
}

// Own are options of the command line that MHA does not know; people write them into app1.cnf behind the hook's name.
type Own struct {
	// Group is the group that the call is about; empty means the only writer group.
	Group string
	// Socket, Endpoint, CA, Cert and Key say how the daemon is reached.
	Socket, Endpoint, CA, Cert, Key string
}

// secret says of which options nothing may be kept: passwords, and ssh's options, which may name keys.
func secret(name string) bool {
	return strings.HasSuffix(name, "password") || strings.HasPrefix(name, "ssh_") || strings.Contains(name, "_ssh_")
}

// Parse reads the arguments of a hook, without the program's name. testMode is the value of the environment's TEST_MODE.
// The error says what is missing or contradictory; what is merely unknown is none.
func Parse(args []string, testMode string) (Call, error) {
	p := parser{call: Call{DryRun: testMode != "" && testMode != "0"}}
	for len(args) > 0 {
		args = args[p.take(args):]
	}
	if p.err != nil {
		return Call{}, p.err
	}
	p.positional()
	return p.call, p.complete()
}

type parser struct {
	call  Call
	words []string
	err   error
}

// bare are options that stand without a value.
var bare = map[string]bool{"orig_master_is_new_slave": true, "dry-run": true, "dry_run": true}

// take reads one argument, or two where the value stands apart, and returns how many.
func (p *parser) take(args []string) int {
	name, isOption := strings.CutPrefix(args[0], "--")
	if !isOption || name == "" {
		if strings.HasPrefix(args[0], "-") {
			p.ignore(args[0])
			return 1
		}
		p.words = append(p.words, args[0])
		return 1
	}
	name, value, joined := strings.Cut(name, "=")
	name = strings.ToLower(name)
	switch {
	case bare[name]:
		p.flag(name, !joined || value != "0")
		return 1
	case joined:
		p.option(name, value)
		return 1
	case len(args) > 1 && !strings.HasPrefix(args[1], "--") && (p.known(name) || secret(name) || !isCommand(args[1])):
		p.option(name, args[1])
		return 2
	}
	p.ignore("--" + name)
	return 1
}

func (p *parser) flag(name string, on bool) {
	if name == "orig_master_is_new_slave" {
		p.call.OldIsReplica = on
	} else {
		p.call.DryRun = p.call.DryRun || on
	}
}

// target returns where the text of an option goes, nil if the option is not known or not a text.
func (p *parser) target(name string) *string {
	c := &p.call
	switch name {
	case "command":
		return (*string)(&c.Command)
	case "orig_master_host":
		return &c.Old.Host
	case "orig_master_ip":
		return &c.Old.IP
	case "new_master_host":
		return &c.New.Host
	case "new_master_ip":
		return &c.New.IP
	case "remora-group":
		return &c.Own.Group
	case "socket":
		return &c.Own.Socket
	case "endpoint":
		return &c.Own.Endpoint
	case "ca":
		return &c.Own.CA
	case "cert":
		return &c.Own.Cert
	case "key":
		return &c.Own.Key
	}
	return nil
}

func (p *parser) known(name string) bool {
	return p.target(name) != nil || name == "orig_master_port" || name == "new_master_port"
}

func (p *parser) option(name, value string) {
	switch name {
	case "orig_master_port":
		p.port(&p.call.Old, name, value)
		return
	case "new_master_port":
		p.port(&p.call.New, name, value)
		return
	case "orig_master_user", "new_master_user":
		return // part of MHA's language, and of no use here
	}
	if secret(name) {
		return
	}
	if to := p.target(name); to != nil {
		*to = Unescape(value)
		return
	}
	p.ignore("--" + name)
}

func (p *parser) port(s *Server, name, value string) {
	n, err := strconv.ParseUint(value, 10, 16)
	if err != nil || n == 0 {
		p.fail("--%s=%q is not a port", name, shorten(value))
		return
	}
	s.Port = uint16(n)
}

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf(format, args...)
	}
}

// ignore notes an argument by its name. The value may be a secret.
func (p *parser) ignore(name string) {
	name, _, _ = strings.Cut(name, "=")
	p.call.Ignored = append(p.call.Ignored, shorten(name))
}

func isCommand(word string) bool {
	switch Command(strings.ToLower(word)) {
	case Status, Stop, StopSSH, Start:
		return true
	}
	return false
}

// positional reads "stop HOST", "start HOST" and "status" as people type them. Words behind are ignored.
func (p *parser) positional() {
	c := &p.call
	if c.Command != "" || len(p.words) == 0 {
		for _, w := range p.words {
			p.ignore(w)
		}
		return
	}
	at := 0
	for at < len(p.words)-1 && !isCommand(p.words[at]) {
		p.ignore(p.words[at]) // the value of an unknown option that stood apart
		at++
	}
	c.Command = Command(p.words[at])
	rest := p.words[at+1:]
	if len(rest) == 0 {
		return
	}
	if Command(strings.ToLower(string(c.Command))) == Start {
		c.New.Host = cmp.Or(c.New.Host, rest[0])
	} else {
		c.Old.Host = cmp.Or(c.Old.Host, rest[0])
	}
	for _, w := range rest[1:] {
		p.ignore(w)
	}
}

// complete says what a call lacks.
func (p *parser) complete() error {
	c := &p.call
	c.Command = Command(strings.ToLower(string(c.Command)))
	switch c.Command {
	case Status:
	case Stop, StopSSH:
		if c.Old.Host == "" && c.Old.IP == "" {
			return fmt.Errorf("%s without the old primary: give --orig_master_host=HOST, or write '%[1]s HOST'", c.Command)
		}
	case Start:
		if c.New.Host == "" && c.New.IP == "" {
			return fmt.Errorf("start without the new primary: give --new_master_host=HOST, or write 'start HOST'")
		}
	case "":
		return fmt.Errorf("no command: give --command=status, stop, stopssh or start")
	default:
		return fmt.Errorf("unknown command %q: use status, stop, stopssh or start", shorten(string(c.Command)))
	}
	return nil
}

// Unescape takes off the backslashes that MHA puts before characters which mean something to a shell, and which the quotes
// around them keep: \x becomes x.
func Unescape(s string) string {
	if !strings.ContainsRune(s, '\\') {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func shorten(s string) string {
	const longest = 64
	if len(s) <= longest {
		return s
	}
	return strings.ToValidUTF8(s[:longest], "") + "..."
}
