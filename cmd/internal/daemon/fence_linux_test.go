package daemon

import (
	"log/slog"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/netio"
)

// inNamespace lets the rest of the test run in a network namespace of its own, with nothing but loopback. What it starts
// does too, other goroutines do not.
func inNamespace(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal("make a network namespace, for which one has to be root: ", err)
	}
	command(t, "ip", "link", "set", "lo", "up")
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// killed leaves an address and a closed fence in the kernel, as a daemon that was killed does.
func killed(t *testing.T, vip netip.Prefix) {
	t.Helper()
	fence, err := netio.NewFence(netio.FenceConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if err := fence.Install([]netip.Addr{vip.Addr()}); err != nil {
		t.Fatal(err)
	}
	if err := fence.Arm(1, time.Minute, nil); err != nil {
		t.Fatal(err)
	}
	b, err := netio.NewBinder(netio.Config{Fence: fence})
	if err != nil {
		t.Fatal(err)
	}
	err = b.Bind(t.Context(), core.Bind{Group: "writer", Epoch: 1, Lifetime: time.Minute, Report: 1, NotAfter: netio.Boottime().Add(time.Minute),
		Spec: core.GroupSpec{Name: "writer", Addresses: []netip.Prefix{vip}, Interface: "lo"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := fence.Detach(); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

// A process that is to have no fence, by its configuration or as a witness, clears away that of the one before it, after the
// addresses that it had closed.
func TestCleanWithoutFence(t *testing.T) {
	unfenced := strings.NewReplacer("[tls]", "[process]\nkernel_lease = \"lifetime\"\n[tls]", `policy = "promote"`, "policy = \"promote\"\nfence_port = false")
	cfg := load(t, "profile = \"wan\"\n"+unfenced.Replace(promoting))
	vip := netip.MustParsePrefix("10.77.0.100/32")
	for _, name := range []core.NodeName{"db1", "mgr"} {
		t.Run(string(name), func(t *testing.T) {
			inNamespace(t)
			killed(t, vip)
			n, _ := cfg.Node(name)
			d := &daemon{opt: Options{Config: cfg, Self: n.NodeSpec}, cfg: cfg, log: slog.New(slog.DiscardHandler)}
			if err := d.makeFence(); err != nil {
				t.Fatal(err)
			}
			b, err := netio.NewBinder(netio.Config{Fence: d.fence})
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			d.binder = b
			if err := d.clean(); err != nil {
				t.Error(err)
			}
			if bound := command(t, "ip", "-o", "address", "show", "to", vip.String()); bound != "" {
				t.Errorf("still bound: %s", bound)
			}
			if rules := command(t, "nft", "list", "ruleset"); rules != "" {
				t.Errorf("there are still rules:\n%s", rules)
			}
		})
	}
}

// Where a table can not be removed because an address that it closes is bound by somebody else, the daemon does not start,
// and says what to do.
func TestCleanLeavesClosedWhatIsBound(t *testing.T) {
	inNamespace(t)
	vip := netip.MustParsePrefix("10.77.0.100/32")
	killed(t, vip)
	command(t, "ip", "address", "delete", vip.String(), "dev", "lo")
	command(t, "ip", "address", "add", vip.String(), "dev", "lo") // without our mark
	b, err := netio.NewBinder(netio.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	d := &daemon{binder: b, unfenced: true, log: slog.New(slog.DiscardHandler)}
	err = d.clean()
	if err == nil || !strings.Contains(err.Error(), "10.77.0.100/32") || !strings.Contains(err.Error(), "nft delete table inet remora") {
		t.Errorf("clean: %v", err)
	}
	if rules := command(t, "nft", "list", "ruleset"); !strings.Contains(rules, "table inet remora") {
		t.Errorf("the rules are now:\n%s", rules)
	}
}
