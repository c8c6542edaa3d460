package core

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var rewrite = flag.Bool("rewrite", false, "write what the scripts in testdata do into them as what is expected")

// sentence is what a finding looks like: a node's name or a capital first, a full stop last.
var sentence = regexp.MustCompile(`^([A-Z]|n[0-9]+ |mgr ).*[^.:]\.$`)

// TestScripts plays the scripts in testdata. A script is a list of blocks: commands, a line "----", and what the commands
// must lead to, up to an empty line. Lines that begin with # are for the reader.
//
//	cluster [profile=P] NODE[:witness][:PRIORITY]...   the nodes
//	group NAME POLICY ADDRESS... [interface=I] [preempt] [keep=D]   a group of the configuration
//	readers POOL ADDRESS... [max_lag=D] [balance_after=D] [allow_primary]   a group of role reader for each address
//	settled OWNER LEADER                  boot all, let OWNER own the first group and LEADER lead; says nothing
//	boot|kill|freeze|thaw|stop NODE...    a process: start, kill -9, SIGSTOP, SIGCONT, SIGTERM
//	elect NODE                            Raft makes NODE the leader; who can not be reached does not hear of it
//	health NODE healthy|failed|unknown [reason=R] [writable=yes|no] [source=ADDR] [replicating=yes|no] [lag=D] [listens=A,B]
//	mha NODE acts|watches|gone|unknown    which of MHA's locks is held on the server of NODE
//	link NODE INTERFACE up|down|missing
//	hang|fail NODE bind|extend|unbind [WHY]   system calls that do not end, or fail
//	finish NODE, works NODE               the ends of those
//	conflict NODE MAC                     who answers the probes of NODE; - for nobody
//	hand|unhand|remove|stray NODE ADDRESS somebody binds or removes an address by hand; one with our mark turns up
//	claim NODE MAC ADDRESS                NODE sees a foreign claim on the link
//	jump NODE REASON                      the clock of NODE leaps
//	cut NODE, heal                        the network
//	unreached NODE                        what is sent to NODE gets lost, what it sends arrives
//	deaf NODE, dry NODE                   the Raft of NODE hears nothing, its datagrams go through; it runs --dry-run
//	hold, go                              the log takes no entries, takes entries again
//	receive NODE FROM ack|notice|release GROUP EPOCH [seq=N] [inc=N]   a datagram out of time
//	ask NODE move GROUP TO, ask NODE pause|resume GROUP
//	ask NODE stop|online-stop|graceful-stop|start|clear-start GROUP WHOM, ask NODE remark GROUP   what MHA says
//	configure [ttl=D]                     the file that all nodes now have: the groups that follow, then "offer"
//	offer [NODE...]                       give the file to the daemons
//	run D                                 let time pass
//	quietly COMMAND                       do not show what follows from it
//	all COMMAND                           show reports, rounds, acks and timers too
//	ask NODE promote GROUP TO [accept-loss], ask NODE rejoin
//	sql NODE [writable|read-only] [lags|applies] [executed=SET] [received=SET] [source=NODE]   the server of NODE
//	write NODE N                          N transactions are committed on the server of NODE, and received by its replicas
//	ledger, bound, servers, status NODE, history   show what is
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts in testdata: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { playFile(t, file) })
	}
}

func playFile(t *testing.T, file string) {
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got := play(t, string(b))
	if bytes.Equal(b, []byte(got)) {
		return
	}
	if *rewrite {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("%s (accept with: go test ./core -run TestScripts -rewrite)\n%s", file, firstDifference(string(b), got))
}

// play returns the script with what its commands really led to.
func play(t *testing.T, text string) string {
	s := &script{t: t}
	s.flush()
	var out strings.Builder
	skip := false
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case skip && line != "":
			continue
		case line == "----":
			skip = true
			out.WriteString("----\n" + s.flush())
			continue
		case line != "" && line[0] != '#':
			s.command(strings.Fields(line))
		}
		skip = false
		out.WriteString(line + "\n")
	}
	return out.String()
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		if i >= len(w) || i >= len(g) || w[i] != g[i] {
			from, around := max(0, i-3), func(ls []string) string { return strings.Join(ls[min(len(ls), max(0, i-3)):min(len(ls), i+8)], "\n") }
			return fmt.Sprintf("from line %d\n--- want\n%s\n--- got\n%s", from+1, around(w), around(g))
		}
	}
	return "no difference"
}

// script carries out commands and writes down what they lead to.
type script struct {
	t      *testing.T
	c      *cluster
	cfg    Config
	timing Timing
	start  Instant
	out    strings.Builder
	quiet  bool
	all    bool
	asked  map[string]int // requests for a release that were seen already, and how often again
	ticket uint64
}

// flush returns what was written down since the last time.
func (s *script) flush() string {
	for _, text := range slices.Sorted(maps.Keys(s.asked)) {
		if n := s.asked[text]; n > 0 {
			fmt.Fprintf(&s.out, "        %s (%d times more)\n", text, n)
		}
	}
	defer s.out.Reset()
	s.asked = map[string]int{}
	return s.out.String()
}

func (s *script) say(who, format string, args ...any) {
	if s.quiet {
		return
	}
	text := fmt.Sprintf("%-4s %s", who, fmt.Sprintf(format, args...))
	if strings.Contains(text, " please") {
		if _, seen := s.asked[text]; seen {
			s.asked[text]++
			return
		}
		s.asked[text] = 0
	}
	fmt.Fprintf(&s.out, "%7.1f %s\n", float64(s.c.now.Sub(s.start))/float64(time.Millisecond), text)
}

func (s *script) command(words []string) {
	s.t.Helper()
	cmd, args, opts := words[0], []string{}, map[string]string{}
	for _, w := range words[1:] {
		if k, v, ok := strings.Cut(w, "="); ok {
			opts[k] = strings.ReplaceAll(v, "_", " ")
			continue
		}
		args = append(args, w)
	}
	switch cmd {
	case "cluster":
		s.cluster(args, opts)
	case "group":
		s.group(args, opts)
	case "readers":
		s.readers(args, opts)
	case "configure":
		s.cfg.Version++
		s.cfg.Groups = nil
		if v := opts["ttl"]; v != "" {
			s.cfg.TTL = Millis(s.duration(v).Milliseconds())
		}
	case "quietly":
		s.quiet = true
		s.command(words[1:])
		s.quiet = false
	case "all":
		s.all = true
		s.command(words[1:])
		s.all = false
	default:
		s.begin()
		if !s.onCluster(cmd, args, opts) && !s.onNode(cmd, args, opts) && !s.show(cmd, args) {
			s.t.Fatalf("unknown command %q", words)
		}
	}
}

func (s *script) cluster(args []string, opts map[string]string) {
	timing, err := ProfileTiming(cmp.Or(opts["profile"], "lan"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.timing = timing
	s.cfg = Config{Version: 1, Cluster: "test", TTL: Millis(timing.TTL.Milliseconds())}
	for i, a := range args {
		parts := strings.Split(a, ":")
		n := NodeSpec{Name: NodeName(parts[0]), Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 77, 0, byte(11 + i)}), 7400)}
		for _, p := range parts[1:] {
			if p == "witness" {
				n.Witness = true
				continue
			}
			n.Priority = s.number(p)
		}
		s.cfg.Nodes = append(s.cfg.Nodes, n)
	}
}

func (s *script) group(args []string, opts map[string]string) {
	g := GroupSpec{Name: GroupName(args[0]), Role: Writer, Policy: Policy(args[1]), Interface: cmp.Or(opts["interface"], "eth0")}
	if v := opts["max_lost"]; v != "" {
		g.Promotion.MaxLost = int64(s.number(v))
	}
	if v := opts["keep"]; v != "" {
		g.KeepUnwritable = Millis(s.duration(v).Milliseconds())
	}
	for _, a := range args[2:] {
		if a == "preempt" {
			g.Preempt = true
			continue
		}
		g.Addresses = append(g.Addresses, netip.PrefixFrom(s.addr(a), 32))
	}
	s.cfg.Groups = append(s.cfg.Groups, g)
}

func (s *script) readers(args []string, opts map[string]string) {
	pool := GroupName(args[0])
	var r Reading
	for opt, to := range map[string]*Millis{"max_lag": &r.MaxLag, "balance_after": &r.BalanceAfter} {
		if v := opts[opt]; v != "" {
			*to = Millis(s.duration(v).Milliseconds())
		}
	}
	r.AllowPrimary = slices.Contains(args, "allow_primary")
	for _, a := range args[1:] {
		if a != "allow_primary" {
			s.cfg.Groups = append(s.cfg.Groups, GroupSpec{Name: pool + "/" + GroupName(a), Role: Reader, Pool: pool, Reading: r,
				Interface: "eth0", Addresses: []netip.Prefix{netip.PrefixFrom(s.addr(a), 32)}})
		}
	}
}

// begin makes the cluster when the first command needs it.
func (s *script) begin() {
	if s.c != nil {
		return
	}
	s.c = newCluster(s.t, s.cfg, s.timing)
	s.start = s.c.now
	s.c.trace = func(format string, args ...any) { s.say("", format, args...) }
	s.c.act = s.acted
}

func (s *script) onCluster(cmd string, args []string, _ map[string]string) bool {
	c := s.c
	switch cmd {
	case "settled":
		quiet := s.quiet
		s.quiet = true
		c.settle(NodeName(args[0]), NodeName(args[1]))
		s.quiet = quiet
	case "run":
		c.run(s.duration(args[0]))
	case "elect":
		c.elect(NodeName(args[0]))
	case "heal":
		c.heal()
	case "hold":
		c.holding = true
	case "go":
		c.holding = false
		c.commit()
	case "offer":
		c.cfg = s.cfg
		for _, name := range c.names {
			if len(args) == 0 || slices.Contains(args, string(name)) {
				c.step(name, ConfigOffered{Config: s.cfg})
			}
		}
	default:
		return false
	}
	return true
}

func (s *script) onNode(cmd string, args []string, opts map[string]string) bool {
	if len(args) == 0 {
		return false
	}
	c, name := s.c, NodeName(args[0])
	n := c.nodes[name]
	if n == nil {
		s.t.Fatalf("%s: there is no node %q", cmd, name)
	}
	switch cmd {
	case "boot", "kill", "freeze", "thaw", "stop", "cut", "unreached", "deaf", "dry":
		for _, a := range args {
			s.process(cmd, NodeName(a))
		}
	case "health":
		n.health = s.health(args[1], opts)
		c.step(name, HealthChanged{Health: n.health})
	case "mha":
		n.health.MHAActs, n.health.MHAWatches = mhaLock(args[1], "acts"), mhaLock(args[1], "watches")
		c.step(name, HealthChanged{Health: n.health})
	case "link":
		c.step(name, LinkChanged{Interface: args[1], Up: args[2] == "up", Missing: args[2] == "missing"})
	case "hang":
		n.hang[args[1]] = true
	case "fail":
		n.fail[args[1]] = strings.Join(args[2:], " ")
	case "works":
		clear(n.fail)
	case "finish":
		c.finish(name)
	case "conflict":
		n.conflict, _ = net.ParseMAC(args[1])
	case "hand", "unhand", "remove", "stray":
		s.byHand(cmd, n, s.addr(args[1]))
	case "claim":
		mac, _ := net.ParseMAC(args[1])
		c.step(name, ForeignClaim{Address: s.addr(args[2]), MAC: mac})
	case "jump":
		c.step(name, ClockJumped{Reason: strings.Join(args[1:], " ")})
	case "receive":
		c.step(name, Received{From: NodeName(args[1]), Msg: s.message(n, args[2:], opts), Term: n.term})
	case "ask":
		s.ask(name, args[1:])
	default:
		return s.sqlCommand(cmd, n, args[1:], opts)
	}
	return true
}

func (s *script) process(cmd string, name NodeName) {
	c := s.c
	switch cmd {
	case "boot":
		c.boot(name)
	case "kill":
		c.kill(name)
	case "freeze":
		c.freeze(name)
	case "thaw":
		c.thaw(name)
	case "stop":
		c.step(name, ShutdownAsked{})
	case "cut":
		c.isolate(name)
	case "unreached":
		for _, other := range c.names {
			c.cut[[2]NodeName{other, name}] = true
		}
	case "deaf":
		c.nodes[name].deaf = true
	case "dry":
		c.nodes[name].dryRun = true
	}
}

func (s *script) byHand(cmd string, n *node, a netip.Addr) {
	switch cmd {
	case "hand":
		n.foreign[a] = true
	case "unhand":
		delete(n.foreign, a)
	case "remove":
		delete(n.bound, a)
	}
	s.c.step(n.name, AddressesSeen{{Address: a, Present: n.foreign[a] || cmd == "stray", Ours: cmd == "stray"}})
}

func (s *script) ask(name NodeName, args []string) {
	s.ticket++
	if args[0] == "rejoin" {
		s.c.step(name, RejoinAsked{Ticket: s.ticket})
		return
	}
	g := GroupName(args[1])
	switch args[0] {
	case "promote":
		s.c.step(name, PromoteAsked{Ticket: s.ticket, Group: g, To: NodeName(args[2]), AcceptLoss: slices.Contains(args, "accept-loss"), Reason: "asked by an operator"})
	case "move":
		s.c.step(name, MoveAsked{Ticket: s.ticket, Group: g, To: NodeName(args[2]), Reason: "asked by an operator"})
	case "pause", "resume":
		s.c.step(name, PauseAsked{Ticket: s.ticket, Group: g, On: args[0] == "pause", Reason: "asked by an operator"})
	case "stop", "online-stop", "graceful-stop":
		s.c.step(name, AdviceAsked{Ticket: s.ticket, Group: g, Stop: true, Node: NodeName(args[2]), Online: args[0] != "stop",
			Graceful: args[0] == "graceful-stop", Drain: time.Second, By: "mha@mgr", Wait: 5 * time.Second})
	case "start", "clear-start":
		s.c.step(name, AdviceAsked{Ticket: s.ticket, Group: g, Node: NodeName(args[2]), By: "mha@mgr", Waive: 2 * time.Second,
			Clear: args[0] == "clear-start"})
	case "remark":
		s.c.step(name, RemarkAsked{Ticket: s.ticket, Group: g, Text: "somebody did something"})
	default:
		s.t.Fatalf("ask what? %q", args)
	}
}

func (s *script) message(n *node, args []string, opts map[string]string) Message {
	g, e := GroupName(args[1]), Epoch(s.number(args[2]))
	switch args[0] {
	case "ack":
		inc, seq := n.m.opt.Incarnation, n.m.seq
		if v := opts["inc"]; v != "" {
			inc = Incarnation(s.number(v))
		}
		if v := opts["seq"]; v != "" {
			seq += Seq(s.number(v)) // relative to the last one
		}
		return Ack{Incarnation: inc, Seq: seq, TTL: s.cfg.TTL.Duration(), Groups: []GroupEpoch{{g, e}}}
	case "notice":
		state := n.m.fresh[g]
		state.Epoch = e
		return Notice{Group: g, State: state}
	case "freeze":
		return Freeze{Group: g, Epoch: e, Round: uint64(s.number(opts["round"])), Term: n.m.view.Office.Term}
	case "release":
		return ReleaseRequest{Group: g, Epoch: e, Reason: "late"}
	}
	s.t.Fatalf("unknown message %q", args)
	return nil
}

func (s *script) health(state string, opts map[string]string) Health {
	h := Health{Reason: opts["reason"], Writable: tri(opts["writable"]), Source: opts["source"], Replicating: tri(opts["replicating"])}
	if l := opts["lag"]; l != "" {
		h.Lag = s.duration(l)
	}
	switch state {
	case "healthy":
		h.State = Healthy
	case "failed":
		h.State = Failed
	}
	if l := opts["listens"]; l != "" {
		for a := range strings.SplitSeq(l, ",") {
			h.Listens = append(h.Listens, s.addr(a))
		}
	}
	return h
}

// mhaLock tells whether a lock is held where that one, or none, is said to be.
func mhaLock(held, lock string) Tri {
	switch held {
	case "unknown":
		return Unknown
	case lock:
		return Yes
	}
	return No
}

func tri(s string) Tri {
	switch s {
	case "yes":
		return Yes
	case "no":
		return No
	}
	return Unknown
}

func (s *script) show(cmd string, args []string) bool {
	switch cmd {
	case "ledger":
		v := s.c.nodes[s.c.leader].ledger.View()
		for _, name := range s.c.nodes[s.c.leader].m.groups() {
			s.say("", "%s", formatState(v.Groups[name]))
		}
	case "servers":
		s.say("", "servers: %s", s.c.servers())
	case "bound":
		s.say("", "bound: %s", s.c.holders())
	case "history":
		for _, e := range s.c.nodes[s.c.leader].ledger.History() {
			s.say("", "%d %s %s/%d node=%s from=%s: %s", e.Index, e.Kind, e.Group, e.Epoch, e.Node, e.From, e.Reason)
		}
	case "status":
		for _, f := range s.c.nodes[NodeName(args[0])].m.Status(s.c.now).Problems {
			if !sentence.MatchString(f.Text) || strings.Contains(f.Text, "%!") || strings.Contains(f.Text, ": .") {
				s.t.Errorf("%s: %q is no sentence", f.Subject, f.Text)
			}
			s.say(args[0], "%s: %s", f.Subject, f.Text)
		}
	default:
		return false
	}
	return true
}

func (s *script) duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s *script) number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func (s *script) addr(text string) netip.Addr {
	a, err := netip.ParseAddr(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}
