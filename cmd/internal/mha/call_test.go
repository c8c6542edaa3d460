package mha

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const secretWord = `p@ss\ w0rd\!\$x\"y'z\\q\#`

var (
	n1 = Server{Host: "n1", IP: "10.77.0.11", Port: 3306}
	n2 = Server{Host: "n2", IP: "10.77.0.12", Port: 3306}
)

// TestRecordedCalls has every argument list that MHA 0.58 gives to the two hooks, and those that people are known to use.
func TestRecordedCalls(t *testing.T) {
	orig := []string{"--orig_master_host=n1", "--orig_master_ip=10.77.0.11", "--orig_master_port=3306"}
	next := []string{"--new_master_host=n2", "--new_master_ip=10.77.0.12", "--new_master_port=3306", "--new_master_user=mha"}
	ssh := []string{"--orig_master_ssh_host=n1-adm", "--orig_master_ssh_ip=10.1.0.11", "--orig_master_ssh_port=2222", "--ssh_options=-o A=b -i /k"}
	online := func(command string, more ...string) []string {
		return join([]string{"--command=" + command}, orig, []string{"--orig_master_user=mha"}, next,
			[]string{"--orig_master_ssh_user=root", "--new_master_ssh_user=root"}, ssh, []string{"--new_master_ssh_port=2222"}, more,
			[]string{"--orig_master_password=" + secretWord, "--new_master_password=" + secretWord})
	}
	for _, c := range []struct {
		name string
		args []string
		want Call
	}{
		{"status", join([]string{"--command=status", "--ssh_user=root"}, orig), Call{Command: Status, Old: n1}},
		{"status with ssh", join([]string{"--command=status", "--ssh_user=root"}, orig, ssh), Call{Command: Status, Old: n1}},
		{"stopssh", join(orig, []string{"--command=stopssh", "--ssh_user=root"}, ssh), Call{Command: StopSSH, Old: n1}},
		{"stop", join(orig, []string{"--command=stop"}), Call{Command: Stop, Old: n1}},
		{"start", join([]string{"--command=start", "--ssh_user=root"}, orig, next, ssh, []string{"--new_master_password=" + secretWord}),
			Call{Command: Start, Old: n1, New: n2}},
		{"online stop", online("stop"), Call{Command: Stop, Old: n1, New: n2}},
		{"online start", online("start"), Call{Command: Start, Old: n1, New: n2}},
		{"online, the old one becomes a replica", online("start", "--orig_master_is_new_slave"), Call{Command: Start, Old: n1, New: n2, OldIsReplica: true}},
		{"by hand: stop", []string{"stop", "192.168.1.10"}, Call{Command: Stop, Old: Server{Host: "192.168.1.10"}}},
		{"by hand: start", []string{"start", "192.168.1.11"}, Call{Command: Start, New: Server{Host: "192.168.1.11"}}},
		{"by hand: status", []string{"status"}, Call{Command: Status}},
		{"by hand: capitals", []string{"STOP", "n1"}, Call{Command: Stop, Old: Server{Host: "n1"}}},
		{"values that stand apart", []string{"--command", "stop", "--orig_master_host", "n1", "--orig_master_ip", "10.77.0.11", "--orig_master_port", "3306"},
			Call{Command: Stop, Old: n1}},
		{"flags that people append", []string{"--app_vip=10.0.0.9", "--netmask", "24", "--interface=eth0", "--quiet", "--command=stop", "--orig_master_host=n1"},
			Call{Command: Stop, Old: Server{Host: "n1"}, Ignored: []string{"--app_vip", "--netmask", "--interface", "--quiet"}}},
		{"an unknown flag before a command by hand", []string{"--verbose", "stop", "n1"}, Call{Command: Stop, Old: Server{Host: "n1"}, Ignored: []string{"--verbose"}}},
		{"one dash", []string{"-v", "status"}, Call{Command: Status, Ignored: []string{"-v"}}},
		{"words behind", []string{"--command=stop", "--orig_master_host=n1", "left", "over"}, Call{Command: Stop, Old: Server{Host: "n1"}, Ignored: []string{"left", "over"}}},
		{"dry run", []string{"stop", "n1", "--dry-run"}, Call{Command: Stop, Old: Server{Host: "n1"}, DryRun: true}},
		{"Remora's own", []string{"--remora-group=orders", "--endpoint=10.77.0.20:7400", "--ca=/c", "--cert=/d", "--key=/e", "--socket=/s", "--command=status"},
			Call{Command: Status, Own: Own{Group: "orders", Endpoint: "10.77.0.20:7400", CA: "/c", Cert: "/d", Key: "/e", Socket: "/s"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Parse(c.args, "")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("%q (-want +got):\n%s", c.args, diff)
			}
		})
	}
}

func join(lists ...[]string) []string {
	var all []string
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

// TestOrderMeansNothing rotates a recorded call through all its arguments.
func TestOrderMeansNothing(t *testing.T) {
	args := []string{"--command=start", "--ssh_user=root", "--orig_master_host=n1", "--orig_master_ip=10.77.0.11", "--orig_master_port=3306",
		"--new_master_host=n2", "--new_master_ip=10.77.0.12", "--new_master_port=3306", "--new_master_user=mha", "--new_master_password=" + secretWord}
	for i := range args {
		got, err := Parse(join(args[i:], args[:i]), "")
		if diff := cmp.Diff(Call{Command: Start, Old: n1, New: n2}, got); err != nil || diff != "" {
			t.Errorf("rotated by %d: %v\n%s", i, err, diff)
		}
	}
}

func TestTestModeOnlyPrints(t *testing.T) {
	for mode, want := range map[string]bool{"1": true, "yes": true, "0": false, "": false} {
		if c, err := Parse([]string{"status"}, mode); err != nil || c.DryRun != want {
			t.Errorf("TEST_MODE=%q: dry run %v, %v", mode, c.DryRun, err)
		}
	}
}

func TestWrongCallsSayWhatIsMissing(t *testing.T) {
	for want, args := range map[string][]string{
		"no command":                nil,
		`unknown command "fly"`:     {"--command=fly"},
		`unknown command "10.0.0.1`: {"10.0.0.1"},
		"without the old primary":   {"--command=stopssh"},
		"without the new primary":   {"start"},
		`is not a port`:             {"--command=status", "--orig_master_port=70000"},
	} {
		if c, err := Parse(args, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %+v, %v, want an error with %q", args, c, err, want)
		}
	}
}

func TestNothingSecretIsKept(t *testing.T) {
	const word = "hunter2"
	for _, args := range [][]string{
		{"stop", "n1", "--orig_master_password=" + word},
		{"stop", "n1", "--new_master_password", word},
		{"stop", "n1", "--ssh_options=-i " + word},
		{"stop", "n1", "--my_own_password=" + word},
		{"stop", "n1", "--token=" + word},
		{"stop", "n1", "-p=" + word},
	} {
		c, err := Parse(args, "")
		if text := fmt.Sprintf("%+v %v", c, err); strings.Contains(text, word) {
			t.Errorf("%q is kept or told: %s", args, text)
		}
	}
}

func TestUnescapeRecordedPassword(t *testing.T) {
	for in, want := range map[string]string{secretWord: `p@ss w0rd!$x"y'z\q#`, `a\`: `a\`, `plain`: `plain`, `\ÿ`: `ÿ`} {
		if got := Unescape(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	c, err := Parse([]string{`--command=stop`, `--orig_master_host=db\-1`}, "")
	if err != nil || c.Old.Host != "db-1" {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestHookByName(t *testing.T) {
	for program, want := range map[string]Hook{"/usr/local/bin/master_ip_failover": Failover, "master_ip_failover_script": Failover,
		"./master_ip_online_change.pl": OnlineChange, "remora": 0, "/opt/master_ip_failover/remora": 0} {
		if got, ok := HookOf(program); got != want || ok != (want != 0) {
			t.Errorf("%s: %v, %v", program, got, ok)
		}
	}
}

func TestMatch(t *testing.T) {
	nodes := []Node{
		{Name: "db1", Addresses: []netip.Addr{netip.MustParseAddr("10.77.0.11"), netip.MustParseAddr("10.88.0.11")}, Aliases: []string{"mysql-a", "192.0.2.1"}},
		{Name: "db2", Addresses: []netip.Addr{netip.MustParseAddr("10.77.0.12")}},
	}
	for _, c := range []struct {
		s    Server
		want string
		err  string
	}{
		{Server{Host: "db1"}, "db1", ""},
		{Server{Host: "DB1"}, "db1", ""},
		{Server{Host: "10.77.0.12"}, "db2", ""},
		{Server{Host: "10.88.0.11"}, "db1", ""},
		{Server{Host: "::ffff:10.77.0.12"}, "db2", ""},
		{Server{Host: "mysql-a"}, "db1", ""},
		{Server{Host: "192.0.2.1"}, "db1", ""},
		{Server{Host: "db1.example", IP: "10.77.0.11"}, "db1", ""},
		{Server{Host: "db1", IP: "10.99.0.1"}, "db1", ""},
		{Server{Host: "db1", IP: "10.77.0.12"}, "", "db1 is node db1, but its address 10.77.0.12 is node db2"},
		{Server{Host: "db10", IP: "10.77.0.1"}, "", `no node is called "db10" or "10.77.0.1"`},
		{Server{}, "", "no node is called"},
	} {
		got, err := Match(nodes, c.s)
		if got.Name != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%+v: %q, %v; want %q, %q", c.s, got.Name, err, c.want, c.err)
		}
	}
}

// TestExitOfStart holds the choice that docs/mha.md argues: MHA aborts only where going on could make a second writer.
func TestExitOfStart(t *testing.T) {
	for o, want := range map[Outcome]Exit{Seen: OK, Unseen: Proceed, Unfit: Proceed, Refused: Abort, 0: Abort} {
		if got := o.Of(); got != want {
			t.Errorf("outcome %d: exit %d, want %d", o, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"--command=stopssh\x00--orig_master_host=n1\x00--ssh_user=root",
		"stop\x00192.168.1.10", "--command\x00start\x00--new_master_host\x00n2", "--orig_master_port=99999\x00status",
		"--orig_master_password=a\\ b\x00--\x00-\x00--=\x00status", "--app_vip\x00stop\x00n1", "start\x00\\",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, "\x00")
		c, err := Parse(args, "")
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("an error of several lines: %q", err)
			}
			return
		}
		switch c.Command {
		case Status:
		case Stop, StopSSH:
			if c.Old == (Server{}) {
				t.Errorf("%q: a stop of nobody", args)
			}
		case Start:
			if c.New == (Server{}) {
				t.Errorf("%q: a start of nobody", args)
			}
		default:
			t.Errorf("%q: accepted the command %q", args, c.Command)
		}
		for _, name := range c.Ignored {
			if strings.Contains(name, "=") || len(name) > 80 {
				t.Errorf("%q: tells more than a name: %q", args, name)
			}
		}
	})
}
