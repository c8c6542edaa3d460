package control

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/remora-ha/remora/core"
)

// WriteText shows the status to people: a line for each group, the nodes as a table, and a sentence for each thing that
// is not as it should be.
func (s Status) WriteText(w io.Writer) error {
	var b strings.Builder
	for _, g := range s.Groups {
		b.WriteString(s.groupLine(g) + "\n")
	}
	if len(s.Groups) == 0 {
		b.WriteString("no groups yet\n")
	}
	b.WriteString("\n" + s.clusterLine() + "\n")
	if p := s.Process; p.OldConnectionsWhy != "" {
		fmt.Fprintf(&b, "connections to an address that has left %s are ended there by: %s (%s)\n", s.Node, oneLine(p.OldConnections), oneLine(p.OldConnectionsWhy))
	}
	b.WriteString("\n")
	s.nodeTable(&b)
	if len(s.Problems) == 0 {
		b.WriteString("\nall is as it should be\n")
	} else {
		b.WriteString("\nnot as it should be:\n")
		for _, p := range s.Problems {
			fmt.Fprintf(&b, "  %s: %s\n", oneLine(p.Subject), oneLine(p.Text))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (s Status) groupLine(g Group) string {
	parts := []string{g.Name, strings.Join(g.Addresses, " "), "owner=" + orDash(g.Owner), fmt.Sprintf("epoch=%d", g.Epoch)}
	if g.LeaseLeftMS != nil {
		parts = append(parts, fmt.Sprintf("lease=%dms", *g.LeaseLeftMS))
	}
	if g.Phase != "none" && g.Phase != "serving" && g.Phase != "" {
		parts = append(parts, g.Phase)
	}
	if g.BoundHere {
		parts = append(parts, "bound-here")
	}
	if g.Since != nil {
		parts = append(parts, "since="+ago(s.Time.Sub(*g.Since)))
	}
	if g.Policy != "" {
		parts = append(parts, "policy="+g.Policy)
	}
	if g.Paused {
		parts = append(parts, "PAUSED")
	}
	if g.MovingTo != "" {
		parts = append(parts, "moving-to="+g.MovingTo)
	}
	if g.Reason != "" {
		parts = append(parts, fmt.Sprintf("reason=%q", oneLine(g.Reason)))
	}
	return strings.Join(parts, " ")
}

func (s Status) clusterLine() string {
	quorum := "quorum"
	if !s.Quorum {
		quorum = "NO QUORUM"
	}
	line := fmt.Sprintf("cluster %s, %s, leader %s, seen by %s (remora %s", s.Cluster, quorum, orDash(s.Leader), s.Node, s.Version)
	if s.DryRun {
		line += ", dry run"
	}
	return line + ")"
}

func (s Status) nodeTable(b *strings.Builder) {
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tADDRESS\tSTATE\tHEARD\tMYSQL\tROLE\tLAG\tGTID\tSERVER")
	for _, n := range s.Nodes {
		health, role, lag, gtid, server := "-", "-", "-", "-", "-"
		if m := n.MySQL; m != nil {
			health, role, gtid, server = m.Health, m.Role, orDash(oneLine(cut(m.GTID, 40))), orDash(oneLine(m.Version))
			lag = m.lag()
		}
		heard := "never"
		if n.LastHeardMS != nil {
			heard = short(time.Duration(*n.LastHeardMS) * time.Millisecond)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", n.Name, n.Address, n.state(), heard, health, role, lag, gtid, server)
	}
	_ = t.Flush() // a Builder takes everything
}

// lag says how far a server is behind: by its own word, and, after a slash, as measured where that is known.
func (m *MySQL) lag() string {
	own := "-"
	if m.LagMS != nil {
		own = short(time.Duration(*m.LagMS) * time.Millisecond)
	}
	if m.MeasuredLagMS == nil {
		return own
	}
	return own + "/" + short(time.Duration(*m.MeasuredLagMS)*time.Millisecond)
}

// state puts what is special about a node into words.
func (n Node) state() string {
	words := []string{"up"}
	switch {
	case !n.Reachable:
		words[0] = "DOWN"
	case n.Starting:
		words[0] = "starting"
	case n.Leaving:
		words[0] = "leaving"
	}
	for _, w := range []struct {
		is   bool
		word string
	}{{n.Leader, "leader"}, {n.Witness, "witness"}, {!n.Voter, "no vote"}, {n.DryRun, "dry run"},
		{n.MySQL != nil && n.MySQL.SemiSync != nil && n.MySQL.SemiSync.Waits, "semi-sync"},
		{n.MySQL != nil && n.MySQL.SemiSync != nil && !n.MySQL.SemiSync.Waits, "semi-sync has given up"},
		{n.MySQL != nil && n.MySQL.MHAWatches == core.Yes.String(), "MHA watches"},
		{n.MySQL != nil && n.MySQL.MHAActs == core.Yes.String(), "MHA acts"}} {
		if w.is {
			words = append(words, w.word)
		}
	}
	return strings.Join(words, ", ")
}

// WriteHistory shows history entries to people, one on each line.
func WriteHistory(w io.Writer, entries []HistoryEntry) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "INDEX\tTIME\tGROUP\tEPOCH\tWHAT\tNODE\tREASON")
	for _, e := range entries {
		node := orDash(e.Node)
		if e.From != "" && e.From != e.Node {
			node = e.From + " -> " + node
		}
		epoch := "-"
		if e.Epoch != 0 {
			epoch = fmt.Sprint(e.Epoch)
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", e.Index, e.Time.Local().Format("2006-01-02 15:04:05.000"),
			orDash(e.Group), epoch, e.Kind, node, oneLine(e.Reason))
	}
	return t.Flush()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// ago shortens a long time to its two largest units.
func ago(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 0:
		return "0s"
	case d >= day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	default:
		return d.Round(time.Second).String()
	}
}

func short(d time.Duration) string {
	if d < 10*time.Second {
		return d.String()
	}
	return ago(d)
}

func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return s[:most-3] + "..."
}

// oneLine makes sure that text from elsewhere (a server's version, an error) can not forge a line or move the cursor.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}
