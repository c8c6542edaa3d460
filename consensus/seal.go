package consensus

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/remora-ha/remora/core"
)

// A sealed datagram is: session 8 bytes, counter 8 bytes (both clear and authenticated), then the message under
// AES-128-GCM, whose nonce is the session's random start value XORed with the counter. The keys come from the TLS
// session (RFC 8446 section 7.5) of the sender's own connection, so each serves one direction.
const (
	sealHeader   = 16
	sealTag      = 16
	sealOverhead = sealHeader + sealTag
	// maxDatagram keeps a datagram below the smallest usual MTU, IPv6's 1280 bytes, with all headers.
	maxDatagram = 1200
	maxMessage  = maxDatagram - sealOverhead
)

// exporterLabel names the use of the keys that are drawn from a TLS session.
const exporterLabel = "EXPORTER-remora-datagram-1"

// Reasons to drop a datagram.
var (
	errShort   = errors.New("datagram too short")
	errSession = errors.New("datagram of an unknown session")
	errReplay  = errors.New("datagram seen before, or older than the window")
	errForged  = errors.New("datagram is not authentic")
)

// secret is what both ends of a session derive from it.
type secret struct {
	session uint64
	aead    cipher.AEAD
	iv      [12]byte
}

func newSecret(s tls.ConnectionState, cluster string) (secret, error) {
	raw, err := s.ExportKeyingMaterial(exporterLabel, []byte(cluster), 8+12+16)
	if err != nil {
		return secret{}, fmt.Errorf("draw datagram keys from a session: %w", err)
	}
	return secretFrom(raw)
}

func secretFrom(raw []byte) (secret, error) {
	block, err := aes.NewCipher(raw[20:36])
	if err != nil {
		return secret{}, fmt.Errorf("datagram cipher: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return secret{}, fmt.Errorf("datagram cipher: %w", err)
	}
	k := secret{session: binary.BigEndian.Uint64(raw), aead: aead}
	copy(k.iv[:], raw[8:20])
	return k, nil
}

// nonce writes the nonce of a counter.
func (k *secret) nonce(to *[12]byte, counter uint64) {
	*to = k.iv
	binary.BigEndian.PutUint64(to[4:], binary.BigEndian.Uint64(to[4:])^counter)
}

// sealer seals what this node sends to one peer.
type sealer struct {
	secret
	last atomic.Uint64
}

func newSealer(s tls.ConnectionState, cluster string) (*sealer, error) {
	k, err := newSecret(s, cluster)
	return &sealer{secret: k}, err
}

// seal appends the sealed datagram of msg to dst. The two must not overlap. nonce is scratch space.
func (s *sealer) seal(dst, msg []byte, nonce *[12]byte) []byte {
	counter := s.last.Add(1)
	dst = binary.BigEndian.AppendUint64(dst, s.session)
	dst = binary.BigEndian.AppendUint64(dst, counter)
	s.nonce(nonce, counter)
	return s.aead.Seal(dst, nonce[:], msg, dst[len(dst)-sealHeader:])
}

// opener opens what one peer sends on one session.
type opener struct {
	secret
	peer   *peer
	server raft.ServerID

	mu   sync.Mutex
	seen replayWindow
}

func newOpener(s tls.ConnectionState, cluster string) (*opener, error) {
	k, err := newSecret(s, cluster)
	return &opener{secret: k}, err
}

// open checks a datagram and decrypts it in place.
func (o *opener) open(b []byte, nonce *[12]byte) ([]byte, error) {
	counter := binary.BigEndian.Uint64(b[8:])
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.seen.fresh(counter) {
		return nil, errReplay
	}
	o.nonce(nonce, counter)
	body := b[sealHeader:]
	msg, err := o.aead.Open(body[:0], nonce[:], body, b[:sealHeader])
	if err != nil {
		return nil, errForged
	}
	o.seen.mark(counter)
	return msg, nil
}

// replayWindow remembers which of the last 64 counters were seen. Everything older counts as seen.
type replayWindow struct {
	top  uint64
	bits uint64 // bit i stands for top - i
}

func (w *replayWindow) fresh(c uint64) bool {
	if c > w.top {
		return true
	}
	age := w.top - c
	return c != 0 && age < 64 && w.bits&(1<<age) == 0
}

// mark records a counter that is fresh.
func (w *replayWindow) mark(c uint64) {
	if c <= w.top {
		w.bits |= 1 << (w.top - c)
		return
	}
	w.bits = w.bits<<(c-w.top) | 1
	w.top = c
}

// openers holds the sessions on which peers send. The last two of each peer are kept, because a peer uses the old one
// until the new one has been made.
type openers struct {
	mu     sync.RWMutex
	by     map[uint64]*opener
	recent map[core.NodeName][]*opener
}

func (s *openers) add(from core.NodeName, o *opener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by == nil {
		s.by, s.recent = map[uint64]*opener{}, map[core.NodeName][]*opener{}
	}
	if s.by[o.session] != nil {
		return // one in 2^64: the peer's datagrams are dropped until its next session
	}
	s.by[o.session] = o
	all := append(s.recent[from], o)
	for len(all) > 2 {
		delete(s.by, all[0].session)
		all = all[1:]
	}
	s.recent[from] = all
}

// drop forgets the sessions of a node that is not a member any more.
func (s *openers) drop(from core.NodeName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.recent[from] {
		delete(s.by, o.session)
	}
	delete(s.recent, from)
}

// open checks and decrypts a datagram in place.
func (s *openers) open(b []byte, nonce *[12]byte) ([]byte, *opener, error) {
	if len(b) < sealOverhead {
		return nil, nil, errShort
	}
	s.mu.RLock()
	o := s.by[binary.BigEndian.Uint64(b)]
	s.mu.RUnlock()
	if o == nil {
		return nil, nil, errSession
	}
	msg, err := o.open(b, nonce)
	return msg, o, err
}
