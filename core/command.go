package core

// Command is one entry of the Raft log: operations that are applied in order, each accepted or refused on its own, all
// at one log position. A release and the grant that follows it travel in one command, which costs one commit, not two.
type Command struct {
	// ID matches the outcome with the proposal. It is random and unique to the proposal.
	ID uint64 `json:"id"`
	// By is the proposing node, At its wall clock in Unix milliseconds: for people, never for decisions.
	By  NodeName `json:"by"`
	At  int64    `json:"at"`
	Ops []Op     `json:"ops"`
	// Office is the term of the office in which an arbiter has decided this, 0 if no office was needed. Once another
	// arbiter has taken office the decision is void: it rests on leases as the old arbiter knew them.
	Office Term `json:"office,omitempty"`
}

// Op is one operation. Exactly one field is set.
type Op struct {
	TakeOffice *TakeOffice `json:"take_office,omitempty"`
	Configure  *Config     `json:"configure,omitempty"`
	Settle     *Settle     `json:"settle,omitempty"`
	Grant      *Grant      `json:"grant,omitempty"`
	Release    *Release    `json:"release,omitempty"`
	Move       *Move       `json:"move,omitempty"`
	Pause      *Pause      `json:"pause,omitempty"`
	Drain      *Drain      `json:"drain,omitempty"`
	Abort      *Abort      `json:"abort,omitempty"`
	Advise     *Advice     `json:"advise,omitempty"`
	Withdraw   *Withdraw   `json:"withdraw,omitempty"`
	Remark     *Remark     `json:"remark,omitempty"`
}

// TakeOffice opens the term of an arbiter. The term under which it is committed is the only one in which that arbiter
// confirms leases.
type TakeOffice struct {
	Node        NodeName    `json:"node"`
	Incarnation Incarnation `json:"incarnation"`
}

// Settle forgets longer leases than the present length, after all of them must be over.
type Settle struct {
	Version uint64 `json:"version"`
}

// Grant gives a group to a node in the epoch after Prev. The lease that comes with it lasts TTL from the moment at
// which the node's report Seq of its process Incarnation was sent.
type Grant struct {
	Group       GroupName   `json:"group"`
	Prev        Epoch       `json:"prev"`
	To          NodeName    `json:"to"`
	Incarnation Incarnation `json:"incarnation"`
	Seq         Seq         `json:"seq"`
	TTL         Millis      `json:"ttl_ms"`
	// Unfenced marks a grant to a node without a fence, for which everybody waits longer: the next arbiter too, which may
	// not have heard of that node.
	Unfenced bool   `json:"unfenced,omitempty"`
	Reason   string `json:"reason"`
	// Handover grants a group that is still served in epoch Prev: its owner gives it up because of this, and To may claim it
	// when that is done.
	Handover bool `json:"handover,omitempty"`
	// Advice is the operation that the grant closes, 0 if it closes none.
	Advice uint64 `json:"advice,omitempty"`
	// Waive is how long the node may serve against the group's policy, counted from its own first look at the grant.
	Waive Millis `json:"waive_ms,omitempty"`
	// Clear says that the node makes its server writable before it binds, as far as MHA has left that to be done.
	Clear bool `json:"clear,omitempty"`
	// Undo says that the node gets back what it has given up under an operation that was withdrawn: it makes its server, which
	// is read-only because of that, writable again before it binds.
	Undo bool `json:"undo,omitempty"`
	// Basis lists, under policy promote, the nodes whose servers had stopped receiving and said what they have before this
	// was decided.
	Basis []NodeName `json:"basis,omitempty"`
}

// Release ends the holding of a group in Epoch. It is proposed only after the addresses were unbound and read back.
type Release struct {
	Group  GroupName `json:"group"`
	Epoch  Epoch     `json:"epoch"`
	Node   NodeName  `json:"node"`
	Reason string    `json:"reason"`
	// Unproved is set when the holding ended before the addresses were known to be free on the link.
	Unproved bool `json:"unproved,omitempty"`
}

// Move is the intent to bring a group from its owner in Epoch to another node.
type Move struct {
	Group  GroupName `json:"group"`
	Epoch  Epoch     `json:"epoch"`
	To     NodeName  `json:"to"`
	Reason string    `json:"reason"`
	// Began is the log position of the intent, set by the ledger: it tells one attempt from the next.
	Began Index `json:"began,omitempty"`
	// Drained is set, under policy promote, once the owner's server is read-only and idle; Executed is its set since then.
	Drained  bool   `json:"drained,omitempty"`
	Executed string `json:"executed,omitempty"`
}

// Drain is the stage of a Move in which the owner's server is read-only and has executed a set that does not grow.
type Drain struct {
	Group    GroupName `json:"group"`
	Epoch    Epoch     `json:"epoch"`
	Move     Index     `json:"move"`
	Executed string    `json:"executed"`
}

// Abort ends a Move before its point of no return, which is the grant: the owner stays and becomes writable again.
type Abort struct {
	Group  GroupName `json:"group"`
	Epoch  Epoch     `json:"epoch"`
	Move   Index     `json:"move"`
	Reason string    `json:"reason"`
}

// Pause freezes or thaws the ownership of a group.
type Pause struct {
	Group  GroupName `json:"group"`
	On     bool      `json:"on"`
	Reason string    `json:"reason"`
}
