package lab

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// HookCall is one call of a hook that was timed.
type HookCall struct {
	Hook, Command string
	Start, End    time.Time
	Exit          int
}

// timedScript notes when a hook begins and ends, and with what.
const timedScript = `#!/bin/sh
log=$1 hook=$2
shift 2
command=
for a in "$@"; do case $a in --command=*) command=${a#--command=};; esac; done
begin=$(date +%s%N)
"$@"
code=$?
echo "$hook ${command:-none} $begin $(date +%s%N) $code" >>"$log"
exit $code
`

// classicalScript is what the scripts of the trade do: ssh to both nodes, ip and arping there, and nobody looks at what
// became of it.
const classicalScript = `#!/bin/sh
vip=$1 dev=$2 key=$3
shift 3
for a in "$@"; do case $a in
--command=*) command=${a#*=};;
--orig_master_ip=*) old=${a#*=};;
--new_master_ip=*) new=${a#*=};;
esac; done
on() { ssh -n -i "$key" -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no -o LogLevel=ERROR root@"$@"; }
case $command in
stop|stopssh) on "$old" "ip addr del $vip/32 dev $dev";;
start) on "$new" "ip addr add $vip/32 dev $dev; arping -q -c 3 -U -I $dev $vip";;
esac
exit 0
`

func (m *MHA) timesPath() string { return m.at("hooks.log") }

// script writes a script into MHA's directory and returns its path.
func (m *MHA) script(name, text string) (string, error) {
	path := m.at(name)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		return "", fmt.Errorf("write the script %s: %w", name, err)
	}
	return path, nil
}

// Timed returns the line for app1.cnf that calls a hook and notes how long it takes.
func (m *MHA) Timed(hook, line string) (string, error) {
	path, err := m.script("timed", timedScript)
	return fmt.Sprintf("%s %s %s %s", path, m.timesPath(), hook, line), err
}

// Classical returns the line for app1.cnf that calls a hook as people have written it for years.
func (m *MHA) Classical() (string, error) {
	path, err := m.script("classical", classicalScript)
	return fmt.Sprintf("%s %v %s %s", path, m.lab.VIP(), Interface, m.at("id")), err
}

// ClassicalScript is the text of that hook.
func ClassicalScript() string { return classicalScript }

// HookCalls returns the timed calls so far, in the order of their ends.
func (m *MHA) HookCalls() ([]HookCall, error) {
	f, err := os.Open(m.timesPath())
	if err != nil {
		return nil, fmt.Errorf("read the times of the hooks: %w", err)
	}
	defer f.Close()
	var calls []HookCall
	for s := bufio.NewScanner(f); s.Scan(); {
		w := strings.Fields(s.Text())
		if len(w) != 5 {
			return nil, fmt.Errorf("read the times of the hooks: %q is no call", s.Text())
		}
		begin, err1 := strconv.ParseInt(w[2], 10, 64)
		end, err2 := strconv.ParseInt(w[3], 10, 64)
		code, err3 := strconv.Atoi(w[4])
		if err1 != nil || err2 != nil || err3 != nil {
			return nil, fmt.Errorf("read the times of the hooks: %q is no call", s.Text())
		}
		calls = append(calls, HookCall{Hook: w[0], Command: w[1], Start: time.Unix(0, begin), End: time.Unix(0, end), Exit: code})
	}
	return calls, nil
}
