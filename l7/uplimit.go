// SPDX-License-Identifier: Apache-2.0

package l7

import "time"

// streamLimit returns how long a stream may be quiet, 0 meaning for ever: what
// the proxy says or, if that is less, the server.
func (t *attempt) streamLimit() time.Duration {
	limit := orDefault(t.p.StreamTimeout, defaultStreamTimeout)
	s := serverOf(t.x)
	if s == nil {
		return limit
	}
	if own := orDefault(s.StreamTimeout, defaultStreamTimeout); own > 0 && (limit == 0 || own < limit) {
		return own
	}
	return limit
}

// headLimit returns how long the head of the reply may take.
func (t *attempt) headLimit() time.Duration {
	limit := orDefault(t.p.HeaderTimeout, defaultHeadersTimeout)
	if t.p.HeaderTimeout == 0 && wantsStream(t.x) {
		return longer(limit, t.streamLimit())
	}
	return limit
}

// bodyWait bounds the waits for the body of a reply; 0 means no bound.
type bodyWait struct {
	limit  time.Duration // of each
	stream time.Duration // of each, if the reply is a stream
	end    time.Time     // of all; zero means none
}

func (t *attempt) bodyWait() bodyWait {
	limit := orDefault(t.p.BodyTimeout, defaultReplyTimeout)
	stream := limit
	if t.p.BodyTimeout == 0 {
		stream = longer(limit, t.streamLimit())
	}
	return bodyWait{limit, stream, t.deadline}
}
