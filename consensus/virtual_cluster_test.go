package consensus

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-ha/remora/core"
)

// vCluster is a cluster in virtual time. Its nodes are the real thing from the TLS handshake to the agent: Node with its
// sessions, datagrams and Raft, the ledger, the machine. What is modelled is what lies around them: network, disk, kernel,
// clocks, MySQL's health. One goroutine, the test's, lets everything go wrong.
type vCluster struct {
	t        *testing.T
	seed     uint64
	dice     *rand.Rand
	fabric   *fabric
	timing   core.Timing
	config   core.Config
	machines []*machine
	oracle   *oracle
	broken   broken
	due      []dueCall
	began    time.Time

	mu    sync.Mutex
	lines []string
}

// dueCall is something that the test's goroutine does later.
type dueCall struct {
	at time.Time
	do func()
}

// vPlan is what a virtual cluster is made from.
type vPlan struct {
	seed   uint64
	nodes  int
	groups int
	broken broken
	rules  rule    // those that count; 0 means all
	clocks []int64 // how wrong the clocks are, in millionths; nil leaves it to the seed

	profile string // of the timing; empty means lan
}

// identities are certificates for as many nodes as a virtual cluster may have. They are made in real time, and each
// bubble begins by waiting until they are valid.
type identities struct {
	files []TLSFiles
	valid time.Time
}

const vMaxNodes = 5

func newIdentities(t *testing.T) identities {
	ca := newAuthority(t)
	id := identities{valid: time.Now()}
	for i := range vMaxNodes {
		id.files = append(id.files, ca.issue(t, testCluster, vName(i)))
	}
	return id
}

func vName(i int) core.NodeName { return core.NodeName(fmt.Sprintf("n%d", i+1)) }

func vAddr(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 77, 0, byte(11 + i)}), 7400)
}

// vPatience is how long a cluster may take by the real clock, many times what is usual.
const vPatience = 3 * time.Minute

// inVirtualTime runs play on a new cluster, whose processes have just been started. It returns what was broken, if anything
// was, and how long all that took by the clock inside.
func inVirtualTime(t *testing.T, id identities, p vPlan, play func(c *vCluster)) (verdict *violation, stats vStats) {
	t.Helper()
	dir := t.TempDir()
	stuck := time.AfterFunc(vPatience, func() {
		stacks := make([]byte, 1<<20)
		panic(fmt.Sprintf("seed %d: virtual time stands still, or nearly: does somebody wait for a mutex whose holder sleeps?\n%s",
			p.seed, stacks[:runtime.Stack(stacks, true)]))
	})
	defer stuck.Stop()
	defer endBubble()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(id.valid))
		c := newVCluster(t, id, dir, p)
		for _, m := range c.machines {
			m.boot()
		}
		play(c)
		virtual := time.Since(c.began)
		c.end()
		c.oracle.locked(func() {
			verdict, stats = c.oracle.broken, c.oracle.stats
			stats.virtual = virtual
		})
		if verdict != nil {
			verdict.trace = c.lastLines(80)
		}
	})
	return verdict, stats
}

// endBubble, deferred around a bubble, lets it end with goroutines that wait: a Raft that ends leaves some of what it was asked
// unanswered, and who has asked waits for ever; see await.
func endBubble() {
	if r := recover(); r != nil && !strings.Contains(fmt.Sprint(r), "main bubble goroutine has exited") {
		panic(r)
	}
}

func newVCluster(t *testing.T, id identities, dir string, p vPlan) *vCluster {
	timing, err := core.ProfileTiming(cmp.Or(p.profile, "lan"))
	must(t, err)
	timing.CoolDown = time.Second
	c := &vCluster{t: t, seed: p.seed, dice: rand.New(rand.NewPCG(p.seed, 0)), timing: timing, broken: p.broken, began: time.Now()}
	c.fabric = newFabric(rand.New(rand.NewPCG(p.seed, 2)))
	c.config = core.Config{Version: 1, Cluster: testCluster, TTL: core.Millis(timing.TTL / time.Millisecond)}
	for i := range p.nodes {
		c.config.Nodes = append(c.config.Nodes, core.NodeSpec{Name: vName(i), Address: vAddr(i)})
		c.fabric.machine[vAddr(i).Addr()] = i
	}
	for i := range max(p.groups, 1) {
		c.config.Groups = append(c.config.Groups, core.GroupSpec{Name: core.GroupName(fmt.Sprintf("g%d", i+1)), Role: core.Writer,
			Policy: core.AnyHealthy, Interface: "eth0", Addresses: []netip.Prefix{vPrefix(i)}})
	}
	c.oracle = newOracle(c, p.rules)
	for i := range p.nodes {
		m := &machine{c: c, id: i, name: vName(i), dir: filepath.Join(dir, string(vName(i))), tls: id.files[i],
			drive: newDrive(p.seed<<8 + uint64(i)), clock: vClock{from: c.began, ppm: c.dice.Int64N(20001) - 10000}, healthy: true}
		if p.clocks != nil {
			m.clock.ppm = p.clocks[i]
		}
		m.kernel = newKernel(m)
		c.machines = append(c.machines, m)
	}
	return c
}

// trace keeps a line for the case that something breaks.
func (c *vCluster) trace(m *machine, format string, args ...any) {
	who := ""
	if m != nil {
		who = string(m.name) + " "
	}
	line := fmt.Sprintf("%10.3f ms  ", float64(time.Since(c.began))/1e6) + who + fmt.Sprintf(format, args...)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines = append(c.lines, line)
}

func (c *vCluster) lastLines(n int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.lines[max(0, len(c.lines)-n):], "\n")
}

// tick is how often the oracles look although nothing has happened.
const tick = 2 * time.Millisecond

// run lets time pass, and does what is due meanwhile. It returns false once a rule is broken.
func (c *vCluster) run(span time.Duration) bool {
	for end := time.Now().Add(span); time.Now().Before(end); {
		time.Sleep(min(tick, time.Until(end)))
		if !c.pulse() {
			return false
		}
	}
	return true
}

// until lets time pass until something is so, for at most a limit. It reports whether it is.
func (c *vCluster) until(limit time.Duration, ok func() bool) bool {
	for end := time.Now().Add(limit); !ok(); {
		if time.Now().After(end) || !c.run(tick) {
			return false
		}
	}
	return true
}

func (c *vCluster) pulse() bool {
	for i := 0; i < len(c.due); i++ {
		if d := c.due[i]; !time.Now().Before(d.at) {
			c.due = append(c.due[:i], c.due[i+1:]...)
			d.do()
			i = -1
		}
	}
	c.oracle.look()
	return !c.oracle.isBroken()
}

// after has something done later, by this goroutine.
func (c *vCluster) after(d time.Duration, do func()) {
	c.due = append(c.due, dueCall{time.Now().Add(d), do})
}

// end ends all processes and waits until nothing runs any more.
func (c *vCluster) end() {
	c.fabric.heal()
	for _, m := range c.machines {
		m.die(true)
	}
	for _, m := range c.machines {
		select {
		case <-m.last.ended:
		case <-time.After(time.Minute):
			c.oracle.fail(sane, "the last process of %s does not end", m.name)
		}
	}
	time.Sleep(time.Minute) // timers of what has ended
}

func (c *vCluster) named(n core.NodeName) *machine {
	for _, m := range c.machines {
		if m.name == n {
			return m
		}
	}
	return nil
}
