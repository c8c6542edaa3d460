package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/remora-ha/remora/cmd/internal/config"
	"github.com/remora-ha/remora/cmd/internal/control"
	"github.com/remora-ha/remora/core"
)

// advised is a daemon that gives one answer to advice.
type advised struct {
	fake
	result control.AdviceResult
	server control.ServerAnswer
	advice []control.AdviceRequest
	report string
}

func (f *fake) Advise(context.Context, control.AdviceRequest) (control.AdviceResult, error) {
	return control.AdviceResult{}, f.err
}
func (f *fake) Sight(context.Context, control.SightRequest) (control.Sight, error) {
	return control.Sight{}, f.err
}
func (f *fake) AskServer(context.Context, control.ServerRequest) (control.ServerAnswer, error) {
	return control.ServerAnswer{}, f.err
}
func (f *fake) Report(context.Context, control.ReportRequest) error { return f.err }

func (f *advised) Advise(_ context.Context, req control.AdviceRequest) (control.AdviceResult, error) {
	f.advice = append(f.advice, req)
	return f.result, f.err
}

func (f *advised) AskServer(context.Context, control.ServerRequest) (control.ServerAnswer, error) {
	return f.server, f.err
}

func (f *advised) Report(_ context.Context, req control.ReportRequest) error {
	f.report = req.Text
	return f.err
}

// TestHooksExitAsMHAReadsIt has each outcome of each call with the exit code that docs/mha.md gives for it.
func TestHooksExitAsMHAReadsIt(t *testing.T) {
	stop := []string{"--command=stop", "--orig_master_host=db1"}
	begin := []string{"--command=start", "--orig_master_host=db1", "--new_master_host=db2"}
	for _, c := range []struct {
		name    string
		args    []string
		outcome control.AdviceOutcome
		err     error
		code    int
		says    string
	}{
		{"a stop that is proven", stop, control.AdviceOK, nil, 0, "db2 has given the address up, proven; writer is in epoch 9, owner nobody"},
		{"a stop that is refused", stop, control.AdviceRefused, nil, 1, "stop refused: it serves"},
		{"a stop of which nothing is known", stop, "", errors.New("no leader"), 1, "not carried out: no leader"},
		{"a start that was seen", begin, control.AdviceSeen, nil, 0, "db2 serves, seen on the link"},
		{"a start that nobody saw", begin, control.AdviceUnseen, nil, 10, "no peer has confirmed it"},
		{"a start that could not be", begin, control.AdviceUnfit, nil, 10, "WARNING: it serves"},
		{"a start that is wrong", begin, control.AdviceRefused, nil, 1, "start refused: it serves"},
		{"a status", []string{"status"}, control.AdviceOK, nil, 0, "status: ok"},
		{"a status that is not as believed", []string{"status"}, control.AdviceRefused, nil, 1, "status refused"},
		{"a call that is not understood", []string{"--command=fly"}, control.AdviceOK, nil, 1, `unknown command "fly"`},
	} {
		f := &advised{result: control.AdviceResult{Outcome: c.outcome, Group: "writer", Node: "db2", Epoch: 9, Text: "it serves"}}
		f.err = c.err
		for _, hook := range []string{"failover", "online-change"} {
			r := run(t, serveBackend(t, f), append([]string{"mha", hook}, c.args...)...)
			if r.code != c.code || !strings.Contains(r.out, c.says) || strings.Count(r.out, "\n") != 1 {
				t.Errorf("%s, %s: exit %d (want %d), said %q (want %q)", hook, c.name, r.code, c.code, r.out, c.says)
			}
		}
	}
}

func TestNoDaemonLetsMHAAbort(t *testing.T) {
	r := run(t, Env{}, "mha", "failover", "--socket=/nonexistent/sock", "--command=stopssh", "--orig_master_host=db1")
	if r.code != 1 || !strings.Contains(r.out, "the daemon can not be reached") {
		t.Errorf("exit %d, %q", r.code, r.out)
	}
}

// patient is a daemon that notes how long it is given.
type patient struct {
	fake
	given time.Duration
}

func (p *patient) Advise(ctx context.Context, _ control.AdviceRequest) (control.AdviceResult, error) {
	deadline, _ := ctx.Deadline()
	p.given = time.Until(deadline)
	return control.AdviceResult{Outcome: control.AdviceSeen}, nil
}

// TestAHookWaitsForTheArbitersWord: whoever carries a stop out has given up and said so before the hook does, on its way
// through another daemon too, which keeps half a second for itself.
func TestAHookWaitsForTheArbitersWord(t *testing.T) {
	for _, args := range [][]string{{"failover", "stop", "db1"}, {"online-change", "start", "db1"}} {
		p := new(patient)
		if r := run(t, serveBackend(t, p), append([]string{"mha"}, args...)...); r.out == "" || p.given < core.AdviceLimit+time.Second {
			t.Errorf("%v gives the daemon %v, and the arbiter may take %v (%s)", args, p.given, core.AdviceLimit, r.out)
		}
	}
}

// TestCalledByMHAsName holds that a symbolic link is enough.
func TestCalledByMHAsName(t *testing.T) {
	for program, online := range map[string]bool{"/usr/local/bin/master_ip_failover": false, "/opt/master_ip_online_change": true} {
		f := &advised{result: control.AdviceResult{Outcome: control.AdviceOK}}
		env := serveBackend(t, f)
		env.Program = program
		run(t, env, "--command=stopssh", "--orig_master_host=db1", "--orig_master_ip=10.77.0.11", "--ssh_user=root", "--app_vip=10.0.0.9")
		if len(f.advice) != 1 || f.advice[0].Command != "stop" || f.advice[0].Online != online || f.advice[0].Old != (control.DBServer{Host: "db1", IP: "10.77.0.11"}) {
			t.Errorf("%s asked %+v", program, f.advice)
		}
	}
}

func TestTestModeIsToldToTheDaemon(t *testing.T) {
	f := &advised{result: control.AdviceResult{Outcome: control.AdviceOK, Group: "writer", Node: "db1"}}
	r := run(t, serveBackend(t, f), "mha", "failover", "stop", "db1", "--dry-run")
	if r.code != 0 || !f.advice[0].DryRun || !strings.Contains(r.out, "stop of db1: would be asked for, nothing was done") {
		t.Errorf("exit %d, %q, asked %+v", r.code, r.out, f.advice)
	}
}

// TestHooksKeepSecrets holds that no password and no option of ssh comes out again, also not in an error.
func TestHooksKeepSecrets(t *testing.T) {
	f := &advised{result: control.AdviceResult{Outcome: control.AdviceRefused}}
	for _, args := range [][]string{
		{"mha", "failover", "--command=stop", "--orig_master_host=db1", "--new_master_password=hunter2", "--ssh_options=-i hunter2", "--token=hunter2"},
		{"mha", "failover", "--command=fly", "--orig_master_password=hunter2"},
		{"mha", "secondary-check", "--master_host=db1", "--master_password=hunter2"},
		{"mha", "report", "--subject=ok", "--my_password=hunter2"},
	} {
		if r := run(t, serveBackend(t, f), args...); strings.Contains(r.out+r.errOut+f.report, "hunter2") {
			t.Errorf("%q says %q %q", args, r.out, r.errOut)
		}
	}
	for _, a := range f.advice {
		if strings.Contains(a.By+a.Old.Host+a.New.Host, "hunter2") {
			t.Errorf("asked %+v", a)
		}
	}
}

func TestSecondaryCheck(t *testing.T) {
	for _, c := range []struct {
		answer control.ServerAnswer
		err    error
		code   int
	}{
		{control.ServerAnswer{Silent: []string{"db2: timeout", "mgr: timeout"}}, nil, 0},
		{control.ServerAnswer{Answered: []string{"db2"}, Silent: []string{"mgr"}}, nil, 3},
		{control.ServerAnswer{Silent: []string{"mgr"}, Unreachable: []string{"db2"}}, nil, 2},
		{control.ServerAnswer{}, control.Refusedf("no node is called x"), 2},
	} {
		f := &advised{server: c.answer}
		f.err = c.err
		if r := run(t, serveBackend(t, f), "mha", "secondary-check", "--master_host=db1", "--master_ip=10.77.0.11"); r.code != c.code {
			t.Errorf("%+v, %v: exit %d, want %d (%s)", c.answer, c.err, r.code, c.code, r.out)
		}
	}
}

func TestShutdownHook(t *testing.T) {
	dead := control.ServerAnswer{Silent: []string{"db2", "mgr"}, ReadOnly: "unknown"}
	for _, c := range []struct {
		command string
		outcome control.AdviceOutcome
		answer  control.ServerAnswer
		code    int
	}{
		{"status", control.AdviceRefused, dead, 0},
		{"stopssh", control.AdviceOK, dead, 10},
		{"stopssh", control.AdviceOK, control.ServerAnswer{Answered: []string{"db2"}, ReadOnly: "yes"}, 10},
		{"stopssh", control.AdviceOK, control.ServerAnswer{Answered: []string{"db2"}, ReadOnly: "no"}, 1},
		{"stopssh", control.AdviceRefused, dead, 1},
		{"stop", control.AdviceOK, dead, 0},
	} {
		f := &advised{result: control.AdviceResult{Outcome: c.outcome}, server: c.answer}
		if r := run(t, serveBackend(t, f), "mha", "shutdown", "--command="+c.command, "--host=db1"); r.code != c.code {
			t.Errorf("%+v: exit %d (%s)", c, r.code, r.out)
		}
	}
}

func TestReportEntersTheHistory(t *testing.T) {
	f := new(advised)
	r := run(t, serveBackend(t, f), "mha", "report", "--orig_master_host=db1", "--new_master_host=db2", "--new_slave_hosts=db3",
		"--subject=app1: MySQL Master failover db1 to db2 succeeded", "--body=long\ntext")
	want := "MHA reports: app1: MySQL Master failover db1 to db2 succeeded (from db1 to db2, replicas db3)"
	if r.code != 0 || f.report != want {
		t.Errorf("exit %d, reported %q", r.code, f.report)
	}
}

func TestMHACheck(t *testing.T) {
	dir := t.TempDir()
	toml, conf := filepath.Join(dir, "remora.toml"), filepath.Join(dir, "app1.cnf")
	write := func(file, text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(toml, config.Example())
	write(conf, "[server default]\nmaster_ip_failover_script=/usr/local/bin/master_ip_failover\n[server1]\nhostname=10.77.0.11\n")
	args := []string{"mha", "check", conf, "--config", toml, "--global", filepath.Join(dir, "none")}
	run(t, Env{}, args...).expect(t, "an old script", 1, "  master_ip_failover_script=/usr/bin/remora mha failover", "")
	write(conf, "[server default]\nmaster_ip_failover_script=remora mha failover\nmaster_ip_online_change_script=remora mha online-change\n[server1]\nhostname=10.77.0.11\n")
	run(t, Env{}, args...).expect(t, "Remora's hooks", 0, "server 10.77.0.11: node db1", "")
}
