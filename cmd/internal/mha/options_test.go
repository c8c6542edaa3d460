package mha

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestRecordedOptions has the argument lists that MHA 0.58 gives to its other scripts.
func TestRecordedOptions(t *testing.T) {
	for _, c := range []struct {
		args []string
		want Options
	}{
		{[]string{"--user=root", "--master_host=n1", "--master_ip=10.77.0.11", "--master_port=3306", "--master_user=mha", "--master_password=p;(x", "--ping_type=SELECT", "--options=-i /k"},
			Options{"user": "root", "master_host": "n1", "master_ip": "10.77.0.11", "master_port": "3306", "master_user": "mha", "ping_type": "SELECT"}},
		{[]string{"--command=stopssh", "--ssh_user=root", "--host=n1", "--ip=10.77.0.11", "--port=3306", "--pid_file=/run/m.pid", "--ssh_host=x"},
			Options{"command": "stopssh", "host": "n1", "ip": "10.77.0.11", "port": "3306", "pid_file": "/run/m.pid"}},
		{[]string{"--orig_master_host=n1", "--new_master_host=n2", "--new_slave_hosts=", "--conf=app1.cnf", "--subject=app1: it succeeded", "--body=a\nb"},
			Options{"orig_master_host": "n1", "new_master_host": "n2", "new_slave_hosts": "", "conf": "app1.cnf", "subject": "app1: it succeeded", "body": "a\nb"}},
		{[]string{"-s", "n2", "--command", "stop", "--host", "n1"}, Options{"command": "stop", "host": "n1"}},
	} {
		if diff := cmp.Diff(c.want, ParseOptions(c.args)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", c.args, diff)
		}
	}
}

func TestVerdictNeedsMostOfTheDaemons(t *testing.T) {
	for _, c := range []struct {
		answered, silent, unreachable int
		want                          State
		exit                          Exit
	}{
		{0, 3, 0, Dead, 0}, {0, 2, 1, Dead, 0}, {0, 1, 1, Undecided, 2}, {0, 0, 3, Undecided, 2}, {0, 0, 0, Undecided, 2}, {1, 2, 0, Alive, 3},
	} {
		if got := Verdict(c.answered, c.silent, c.unreachable); got != c.want || got.Exit() != c.exit {
			t.Errorf("%+v: %v, exit %d", c, got, got.Exit())
		}
	}
}

func TestShutdownWithSSHIsNeverZero(t *testing.T) {
	for _, c := range []struct {
		command  Command
		s        State
		readOnly bool
		want     Exit
	}{
		{StopSSH, Dead, false, Proceed}, {StopSSH, Alive, true, Proceed}, {StopSSH, Alive, false, Abort}, {StopSSH, Undecided, true, Abort},
		{Stop, Dead, false, OK}, {Stop, Alive, false, Abort}, {Stop, Undecided, false, Abort}, {"", Dead, true, Abort},
	} {
		if got := ShutdownExit(c.command, c.s, c.readOnly); got != c.want {
			t.Errorf("%+v: exit %d", c, got)
		}
	}
}

func TestReportIsOneShortLine(t *testing.T) {
	got := ReportText(Options{"subject": strings.Repeat("long\n", 200), "orig_master_host": "n1", "new_master_host": "n2"})
	if strings.ContainsAny(got, "\n") || len(got) > 410 || !strings.HasPrefix(got, "MHA reports: long long") {
		t.Errorf("got %q", got)
	}
	if got := ReportText(Options{}); got != "MHA reports: no subject (from nobody to nobody, replicas none)" {
		t.Errorf("got %q", got)
	}
}
