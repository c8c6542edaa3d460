package mha

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const sampleConf = `# an application
[server default]
user=mha
password=hunter2
master_ip_failover_script= /usr/local/bin/master_ip_failover --token=hunter2
secondary_check_script=/usr/bin/masterha_secondary_check -s db2
report_script=/usr/bin/remora mha report

[server1]
hostname=db1
[server2]
hostname = 10.77.0.12
[server3]
hostname=db9
ip=10.77.0.99
[server4]
hostname=mgr
`

func TestCheckSaysWhatToChange(t *testing.T) {
	nodes := []Node{{Name: "db1"}, {Name: "db2", Addresses: []netip.Addr{netip.MustParseAddr("10.77.0.12")}}, {Name: "mgr", Witness: true}}
	c, err := ParseAppConf(sampleConf, "[server default]\nmaster_ip_failover_script=/other\nshutdown_script=/usr/local/bin/power\n")
	if err != nil {
		t.Fatal(err)
	}
	lines, ok := c.Advise(nodes, "/usr/bin/remora")
	want := []string{
		"master_ip_failover_script: /usr/local/bin/master_ip_failover, which is not Remora's and would move the address behind its back",
		"master_ip_online_change_script: not set, so MHA moves no address and tells nobody",
		"secondary_check_script: /usr/bin/masterha_secondary_check, which is not Remora's",
		"shutdown_script: /usr/local/bin/power, which is not Remora's",
		"report_script: Remora's",
		"server db1: node db1",
		"server 10.77.0.12: node db2",
		`server db9: no node is called "db9" or "10.77.0.99": add the name to aliases of the right [[node]] in remora.toml`,
		"server mgr: is node mgr, a witness, which never owns an address",
		"lines to change in [server default]:",
		"  master_ip_failover_script=/usr/bin/remora mha failover",
		"  master_ip_online_change_script=/usr/bin/remora mha online-change",
		"  secondary_check_script=/usr/bin/remora mha secondary-check",
		"  shutdown_script=/usr/bin/remora mha shutdown",
	}
	if diff := cmp.Diff(want, lines); diff != "" || ok {
		t.Errorf("ok=%v (-want +got):\n%s", ok, diff)
	}
	if strings.Contains(strings.Join(lines, "\n"), "hunter2") {
		t.Error("a secret is told")
	}
}

func TestCheckIsContent(t *testing.T) {
	c, err := ParseAppConf("[server default]\nmaster_ip_failover_script=remora mha failover\nmaster_ip_online_change_script=/usr/bin/remora mha online-change --x=y\n[server1]\nhostname=db1\n", "")
	if err != nil {
		t.Fatal(err)
	}
	if lines, ok := c.Advise([]Node{{Name: "db1"}}, "remora"); !ok {
		t.Errorf("not content: %q", lines)
	}
}

func TestWrongAppConf(t *testing.T) {
	for want, text := range map[string]string{"there is no [server1] section": "[server default]\nuser=x\n", "line 2 is no section": "[server1]\nnonsense\n"} {
		if _, err := ParseAppConf(text, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func FuzzParseAppConf(f *testing.F) {
	f.Add(sampleConf)
	f.Add("[server default]\n=\n[]\nhostname=\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseAppConf(text, "")
		if err != nil {
			return
		}
		if lines, _ := c.Advise(nil, "remora"); len(lines) < len(Scripts())+len(c.Servers) {
			t.Errorf("%q: only %q", text, lines)
		}
	})
}
