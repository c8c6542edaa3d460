package consensus

import (
	"time"

	"github.com/hashicorp/raft"

	"github.com/remora-ha/remora/core"
)

// Status describes the consensus on this node, for people.
type Status struct {
	// State is "starting", "joining", "follower", "candidate", "leader" or "stopped".
	State  string        `json:"state"`
	Server raft.ServerID `json:"server"`
	Leader core.NodeName `json:"leader,omitempty"`
	Term   core.Term     `json:"term"`
	// Servers is Raft's latest configuration.
	Servers []Server `json:"servers,omitempty"`
	Peers   []Peer   `json:"peers"`
	// Commit and Applied are the last entries known to be committed and applied here, Last the last in the log.
	Commit  core.Index `json:"commit"`
	Applied core.Index `json:"applied"`
	Last    core.Index `json:"last"`
	// Store names the kind of store; AppendP50 and AppendP99 are over its last 256 appends.
	Store     string        `json:"store"`
	AppendP50 time.Duration `json:"append_p50"`
	AppendP99 time.Duration `json:"append_p99"`
	// Disk says what is wrong with the disk of the state directory, empty if nothing is.
	Disk string `json:"disk,omitempty"`
	// CommitP50 and CommitP99 are over the last 256 proposals of this node that were committed.
	CommitP50 time.Duration `json:"commit_p50"`
	CommitP99 time.Duration `json:"commit_p99"`
	Datagrams Datagrams     `json:"datagrams"`
	// Refused counts the connections that did not prove to be a member's.
	Refused uint64 `json:"refused"`
	// CertificateEnds and AuthorityEnds are when this node's certificate and that of its authority end, by the wall clock. After
	// either no connection to another node comes up; those that are there stay.
	CertificateEnds time.Time `json:"certificate_ends"`
	AuthorityEnds   time.Time `json:"authority_ends"`
}

// Server is one server of Raft's configuration.
type Server struct {
	Node  core.NodeName `json:"node"`
	ID    raft.ServerID `json:"id"`
	Voter bool          `json:"voter"`
}

// Peer is another node as seen from this one.
type Peer struct {
	Node core.NodeName `json:"node"`
	// Reachable is set while a session to the peer is up and something authentic has come from it lately.
	Reachable bool `json:"reachable"`
	// Heard is how long ago something authentic came from the peer; negative if nothing ever did.
	Heard time.Duration `json:"heard"`
	// RTT is the time that the last exchange of hellos took.
	RTT time.Duration `json:"rtt"`
}

// Datagrams counts datagrams since the node was opened.
type Datagrams struct {
	Sent     uint64 `json:"sent"`
	Unsent   uint64 `json:"unsent"` // dropped here: no session, no room
	Received uint64 `json:"received"`
	Dropped  uint64 `json:"dropped"` // replayed, forged, malformed, or the receiver was busy
}

// Status returns the present state of affairs.
func (n *Node) Status() Status {
	s := Status{State: "starting", Server: n.id, Leader: n.Leader(), Term: core.Term(n.store.Term()), Store: storeKind,
		Refused: n.refusals.Load(), Datagrams: Datagrams{Sent: n.wire.sent.Load(), Unsent: n.wire.unsent.Load(),
			Received: n.wire.received.Load(), Dropped: n.wire.dropped.Load()}}
	id := n.identity.Load()
	s.CertificateEnds, s.AuthorityEnds = id.cert.Leaf.NotAfter, id.authorityEnds
	s.AppendP50, s.AppendP99 = n.store.appends.percentiles()
	if t := n.store.log.ails(); t != nil {
		s.Disk = t.String()
	}
	s.CommitP50, s.CommitP99 = n.commits.percentiles()
	for _, p := range n.peers.all() {
		s.Peers = append(s.Peers, n.peerStatus(p))
	}
	if n.joining.Load() {
		s.State = "joining"
	}
	if r := n.raft.Load(); r != nil {
		n.raftStatus(&s, r)
	}
	return s
}

func (n *Node) peerStatus(p *peer) Peer {
	heard := time.Duration(-1)
	if at := p.heard.Load(); at > 0 {
		heard = n.now() - time.Duration(at)
	}
	lately := heard >= 0 && heard < n.lim.mute+n.lim.rpc
	return Peer{Node: p.name, Reachable: lately && p.session.Load() != 0, Heard: heard, RTT: time.Duration(p.rtt.Load())}
}

func (n *Node) raftStatus(s *Status, r *raft.Raft) {
	c := r.GetConfiguration().Configuration()
	for _, v := range c.Servers {
		s.Servers = append(s.Servers, Server{Node: nodeOf(v.ID), ID: v.ID, Voter: v.Suffrage == raft.Voter})
	}
	s.Commit, s.Applied, s.Last = core.Index(r.CommitIndex()), core.Index(n.fsm.applied.Load()), core.Index(r.LastIndex())
	switch r.State() {
	case raft.Leader:
		s.State = "leader"
	case raft.Candidate:
		s.State = "candidate"
	case raft.Shutdown:
		s.State = "stopped"
	default:
		s.State = "follower"
		if !isVoter(c, n.id) {
			s.State = "joining"
		}
	}
}
