package lab

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Group is the name of the group that holds the laboratory's VIPs.
const Group = "writer"

// nodePaths are the files of a node's daemon.
type nodePaths struct {
	ConfigFile, StateDir, Socket, Log, Password, ReplicaPassword, CA, Cert, Key string
}

// config returns the daemon's configuration of a version. The nodes' files differ in nothing but the paths, which on machines
// of their own would be the same.
func (o Options) config(nodes []*Node, p nodePaths, version int) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("cluster = %q\nprofile = %q\nstate_dir = %q\nsocket = %q", o.Name, o.Profile, p.StateDir, p.Socket)
	if version > 1 {
		line("version = %d", version)
	}
	if len(o.Timing) > 0 {
		line("\n[timing]")
		for _, k := range slices.Sorted(maps.Keys(o.Timing)) {
			line("%s = %s", k, tomlValue(o.Timing[k]))
		}
	}
	line("\n[mysql]\naddress = \"127.0.0.1:%d\"\nuser = %q\npassword_file = %q", ServerPort, MonitorUser, p.Password)
	if o.Replicas {
		line("\n[replication]\nuser = %q\npassword_file = %q", replicaUser, p.ReplicaPassword)
	}
	line("\n[tls]\nca = %q\ncert = %q\nkey = %q", p.CA, p.Cert, p.Key)
	for _, n := range nodes {
		line("\n[[node]]\nname = %q\naddress = \"%v:%d\"", n.Name, n.Addr, PeerPort)
		if n.Witness {
			line("witness = true")
		}
	}
	const most = 1024 // addresses of a group
	name, groups := Group, 1
	for vips := range slices.Chunk(o.served(), most) {
		var texts []string
		for _, v := range vips {
			texts = append(texts, fmt.Sprintf("%q", v))
		}
		line("\n[[group]]\nname = %q\nrole = \"writer\"\npolicy = %q\naddresses = [%s]\ninterface = %q",
			name, o.Policy, strings.Join(texts, ", "), Interface)
		name = fmt.Sprintf("crowd-%d", groups)
		groups++
	}
	if o.ExtraConfig != "" {
		line("\n%s", strings.TrimSpace(o.ExtraConfig))
	}
	return b.String()
}

// tomlValue writes whole numbers bare and everything else, durations above all, as a string.
func tomlValue(v string) string {
	if v != "" && strings.Trim(v, "0123456789") == "" {
		return v
	}
	return fmt.Sprintf("%q", v)
}
