package mha

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// AppConf is what an app1.cnf and the global defaults say, as far as hooks and nodes go.
type AppConf struct {
	// Defaults are the keys of [server default], those of the application before the global ones.
	Defaults map[string]string
	// Servers are the [serverN] sections, in the order of the file.
	Servers []Server
}

// Scripts are the keys of app1.cnf that name hooks, with the command of 'remora mha' that takes the place of each.
func Scripts() [][2]string {
	return [][2]string{{"master_ip_failover_script", "failover"}, {"master_ip_online_change_script", "online-change"},
		{"secondary_check_script", "secondary-check"}, {"shutdown_script", "shutdown"}, {"report_script", "report"}}
}

// ParseAppConf reads an app1.cnf and a global file, which may be empty. It reads as MHA does: sections, key=value, comments
// behind #. Values of secret keys are not kept.
func ParseAppConf(app, global string) (AppConf, error) {
	c := AppConf{Defaults: map[string]string{}}
	for _, text := range []string{app, global} {
		section, number := "", 0
		for line := range strings.Lines(text) {
			number++
			line = strings.TrimSpace(line)
			switch {
			case line == "" || line[0] == '#' || line[0] == ';':
			case line[0] == '[' && strings.HasSuffix(line, "]"):
				section = strings.TrimSpace(line[1 : len(line)-1])
				if section != "server default" {
					c.Servers = append(c.Servers, Server{})
				}
			default:
				key, value, ok := strings.Cut(line, "=")
				if !ok {
					return c, fmt.Errorf("line %d is no section and no key=value: MHA would refuse it", number)
				}
				c.take(section, strings.TrimSpace(key), strings.TrimSpace(value))
			}
		}
	}
	if len(c.Servers) == 0 {
		return c, fmt.Errorf("there is no [server1] section: is this an application's configuration?")
	}
	return c, nil
}

func (c *AppConf) take(section, key, value string) {
	if section == "server default" {
		if _, set := c.Defaults[key]; !set && !secret(key) {
			c.Defaults[key] = value
		}
		return
	}
	if len(c.Servers) == 0 {
		return
	}
	s := &c.Servers[len(c.Servers)-1]
	switch key {
	case "hostname":
		s.Host = value
	case "ip":
		s.IP = value
	}
}

// Advise says in lines what the configuration leads to, and which lines to change. ok is false if anything is to be changed.
func (c AppConf) Advise(nodes []Node, binary string) (lines []string, ok bool) {
	ok = true
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	var change []string
	for _, s := range Scripts() {
		key, command := s[0], s[1]
		have := c.Defaults[key]
		moves := command == "failover" || command == "online-change"
		switch {
		case ours(have, command):
			say("%s: Remora's", key)
		case have == "" && !moves:
			say("%s: not set, which is fine", key)
		case have == "":
			say("%s: not set, so MHA moves no address and tells nobody", key)
			ok, change = false, append(change, key+"="+binary+" mha "+command)
		default:
			say("%s: %s, which is not Remora's%s", key, program(have), map[bool]string{true: " and would move the address behind its back"}[moves])
			ok = ok && !moves
			change = append(change, key+"="+binary+" mha "+command)
		}
	}
	var used []string
	for _, s := range c.Servers {
		n, err := Match(nodes, s)
		switch {
		case err != nil:
			say("server %s: %v", s, err)
			ok = false
		case n.Witness:
			say("server %s: is node %s, a witness, which never owns an address", s, n.Name)
			ok = false
		case slices.Contains(used, n.Name):
			say("server %s: is node %s, as another server is", s, n.Name)
			ok = false
		default:
			say("server %s: node %s", s, n.Name)
			used = append(used, n.Name)
		}
	}
	if len(change) > 0 {
		say("lines to change in [server default]:")
		for _, l := range change {
			say("  %s", l)
		}
	}
	return lines, ok
}

// ours reports whether a script is the command of this program, or a link with MHA's name to it that cannot be told apart
// from an old script: then it is not.
func ours(script, command string) bool {
	words := strings.Fields(script)
	return len(words) >= 3 && strings.HasSuffix("/"+words[0], "/remora") && words[1] == "mha" && words[2] == command
}

// program returns the first word of a script's line; what follows may hold secrets.
func program(script string) string {
	words := strings.Fields(script)
	if len(words) == 0 {
		return ""
	}
	return cmp.Or(shorten(words[0]), script)
}
