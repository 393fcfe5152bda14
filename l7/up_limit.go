// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"os"
	"time"
)

// streamLimit returns how long a stream may be quiet, 0 meaning no limit: the
// proxy's StreamTimeout or that of the Server, whichever is shorter.
func (t *attempt) streamLimit() time.Duration {
	limit := orDefault(t.p.StreamTimeout, defaultStreamTimeout)
	if l, ok := t.x.down.limits(); ok && l.stream > 0 && (limit == 0 || l.stream < limit) {
		return l.stream
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
	stream time.Duration // of each wait if the reply is a stream
	end    time.Time     // of the whole body; zero means none
	both   bool          // a stream waits while its request moves
}

// longer returns how much longer a wait that has ended at now may go on, since the
// request of a stream has moved meanwhile: of the two sides of a call often only one
// speaks. It returns 0 or less if it may not.
func (w *bodyWait) longer(now time.Time, p *pump, r *Reply) time.Duration {
	if !w.both || !w.end.IsZero() && !now.Before(w.end) || !isStream(&r.Header) {
		return 0
	}
	return p.silence(now, w.limit)
}

func (t *attempt) bodyWait() bodyWait {
	limit := orDefault(t.p.BodyTimeout, defaultReplyTimeout)
	stream := limit
	if t.p.BodyTimeout == 0 {
		stream = longer(limit, t.streamLimit())
	}
	return bodyWait{limit, stream, t.deadline, t.p.BodyTimeout == 0}
}

// name returns the name of a limit of the Proxy, or of the Transport that it
// works for.
func (t *attempt) name(field string) string {
	return cmpOr(t.p.of, "Proxy") + "." + field
}

// late is timedOut for an operation on the server's side, which TryTimeout and
// Timeout may have ended as well.
func (t *attempt) late(deadline time.Time, field string, limit time.Duration, err error) error {
	now := time.Now()
	switch {
	case !t.deadline.IsZero() && !now.Before(t.deadline):
		field, limit = t.wholeLimit()
	case !deadline.IsZero() && !now.Before(deadline):
		return timedOut(t.name("TryTimeout"), t.p.TryTimeout, err)
	}
	return timedOut(field, limit, err)
}

// lateHead is late for the head of a reply.
func (t *attempt) lateHead(l *try, err error) error {
	limit := orDefault(t.p.HeaderTimeout, defaultHeadersTimeout)
	field := t.name("HeaderTimeout")
	if t.p.HeaderTimeout == 0 && wantsStream(t.x) {
		field, limit = t.streamName(field, limit)
	}
	return t.late(l.deadline, field, limit, err)
}

// lateBody is late for a body, which may be a stream.
func (t *attempt) lateBody(deadline time.Time, stream bool, err error) error {
	limit := orDefault(t.p.BodyTimeout, defaultReplyTimeout)
	field := t.name("BodyTimeout")
	if t.p.BodyTimeout == 0 && stream {
		field, limit = t.streamName(field, limit)
	}
	return t.late(deadline, field, limit, err)
}

// streamName returns which of three limits is in force for a stream.
func (t *attempt) streamName(field string, limit time.Duration) (string, time.Duration) {
	stream := t.streamLimit()
	switch {
	case longer(stream, limit) != stream || stream == limit:
		return field, limit
	case stream != orDefault(t.p.StreamTimeout, defaultStreamTimeout):
		return "Server.StreamTimeout", stream
	}
	return t.name("StreamTimeout"), stream
}

// lateWrite is timedOut for a write to the client, whose error need not say that a
// deadline has passed.
func (t *attempt) lateWrite(err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		err = errors.Join(os.ErrDeadlineExceeded, err)
	}
	if l, ok := t.x.down.limits(); ok {
		return timedOut("Server.SendTimeout", l.write, err)
	}
	return timedOut(t.name("BodyTimeout"), orDefault(t.p.BodyTimeout, defaultBodyTimeout), err)
}
