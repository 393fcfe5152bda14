// SPDX-License-Identifier: Apache-2.0

package h2

// State is the state of a stream (RFC 9113, section 5.1). Idle and closed
// streams are not kept, and there is no push.
//
//	               they end          we end
//	Open           HalfClosedRemote  HalfClosedLocal
//	HalfClosedRemote  error             Closed
//	HalfClosedLocal   Closed            (must not)
//
// RST_STREAM of either side closes the stream in every state.
type State uint8

// The states.
const (
	Open             State = iota
	HalfClosedRemote       // the peer has sent END_STREAM
	HalfClosedLocal        // we have sent END_STREAM
	Closed
)

func (s State) String() string {
	switch s {
	case Open:
		return "open"
	case HalfClosedRemote:
		return "half-closed (remote)"
	case HalfClosedLocal:
		return "half-closed (local)"
	}
	return "closed"
}

// ended returns the state after one side has sent END_STREAM.
func (s State) ended(byPeer bool) State {
	switch {
	case s == Open && byPeer:
		return HalfClosedRemote
	case s == Open:
		return HalfClosedLocal
	}
	return Closed
}

// A Stream is the state of a stream in a Conn. The owner embeds it in its own
// state of the stream; Owner refers to that.
type Stream struct {
	ID    uint32
	Owner any

	state    State
	headed   bool   // the peer has sent a final head: the next one is a trailer
	send     int64  // bytes of DATA that we may send; may be negative after SETTINGS
	recv     int64  // bytes of DATA that the peer may send
	used     int64  // consumed and not yet returned to the window
	window   int64  // the full size of recv
	buffered int64  // received and not consumed
	tail     int    // offset in Out of its last frame
	turn     uint32 // the turn of the Conn in which tail is valid

	// Urgency, 0 before 7, and Incremental give the order in which streams are
	// sent (RFC 9218, section 4).
	Urgency     uint8
	Incremental bool
}

// State returns the state of the stream.
func (s *Stream) State() State { return s.state }

// Window returns how many bytes of DATA the peer allows for this stream, apart
// from the connection's window.
func (s *Stream) Window() int64 { return max(s.send, 0) }

// Buffered returns how many bytes have been received and not consumed.
func (s *Stream) Buffered() int64 { return s.buffered }

// Final is called when the head just received was the final one: the next is a
// trailer. Only the client's side needs it.
func (s *Stream) Final() { s.headed = true }

// defaultUrgency is that of a stream without a priority (RFC 9218, section
// 4.1).
const defaultUrgency = 3

// ParsePriority parses the value of a Priority field (RFC 9218, section 4). It
// ignores what it does not understand.
func ParsePriority(v string) (urgency uint8, incremental bool) {
	urgency = defaultUrgency
	for len(v) > 0 {
		var item string
		item, v = cutItem(v)
		switch {
		case len(item) == 3 && item[:2] == "u=" && item[2] >= '0' && item[2] <= '7':
			urgency = item[2] - '0'
		case item == "i", item == "i=?1":
			incremental = true
		case item == "i=?0":
			incremental = false
		}
	}
	return urgency, incremental
}

// cutItem returns the first item of a list, without the white space around it, and
// the rest.
func cutItem(v string) (item, rest string) {
	end := 0
	for end < len(v) && v[end] != ',' {
		end++
	}
	item = v[:end]
	if end < len(v) {
		rest = v[end+1:]
	}
	for len(item) > 0 && (item[0] == ' ' || item[0] == '\t') {
		item = item[1:]
	}
	for len(item) > 0 && (item[len(item)-1] == ' ' || item[len(item)-1] == '\t') {
		item = item[:len(item)-1]
	}
	return item, rest
}
