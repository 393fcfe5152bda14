// SPDX-License-Identifier: Apache-2.0

package ratelimit

import "time"

// A Ban refuses everything to a key that has been refused too often: After
// refusals within Within of the first of them, for For. Refusals during a ban
// do not extend it. The zero Ban bans no key.
//
// A ban occupies the entry of its key, so [Keyed].Max bounds the number of
// bans: if all sixteen entries for a new key have a ban, the one that ends
// first is dropped, and [Stats].LostBans counts it. A client with many
// addresses can thus make a Keyed drop bans. With a Max of four times the keys
// that may be banned at once that is unlikely; with Keep it cannot happen.
type Ban struct {
	After  int           // refusals that lead to a ban; 0 or negative means none do; at most 32 766
	Within time.Duration // 0 means 1 min
	For    time.Duration // 0 means 10 min

	// Keep never forgets a ban before its end. The price is that new keys that
	// find only bans where they may go are admitted uncounted ([Stats].Untracked).
	Keep bool
}

// The strikes of a key, from the top: a zero bit, 15 bits of count, 48 bits
// of milliseconds. The count is that of refusals since that time or, if
// banned, the key is banned until then.
const (
	strikeTimeBits = 48
	banned         = 1<<15 - 1
)

func strikes(count int64, at time.Duration) int64 {
	return count<<strikeTimeBits | int64(at/time.Millisecond)
}

// status returns how long key is banned for still, and after how long its
// strikes can be forgotten.
func (b Ban) status(s int64, now time.Duration) (wait, forget time.Duration) {
	if s == 0 {
		return 0, 0
	}
	at := time.Duration(s&(1<<strikeTimeBits-1)) * time.Millisecond
	now = max(0, now)
	if s>>strikeTimeBits == banned {
		wait = max(0, at-now)
		return wait, wait
	}
	return 0, max(0, later(at, b.within())-now)
}

// worth returns what a key gains if its strikes are forgotten: the rest of its ban, or as large a
// part of Within as it has of the strikes that lead to a ban.
func (b Ban) worth(s int64, now time.Duration) time.Duration {
	wait, forget := b.status(s, now)
	if wait > 0 || forget == 0 {
		return wait
	}
	part := float64(s>>strikeTimeBits) / float64(max(1, b.After))
	return min(forget, max(1, time.Duration(part*float64(b.within()))))
}

// strike returns the strikes after one more refusal at time now.
func (b Ban) strike(s int64, now time.Duration) int64 {
	now = max(0, now)
	wait, forget := b.status(s, now)
	switch {
	case b.After <= 0 || wait > 0:
		return s
	case forget == 0:
		s = strikes(0, now)
	}
	s += 1 << strikeTimeBits
	if s>>strikeTimeBits >= int64(min(b.After, banned-1)) {
		return strikes(banned, later(later(now, b.span()), time.Millisecond-1))
	}
	return s
}

func (b Ban) within() time.Duration { return orDefault(b.Within, time.Minute) }

func (b Ban) span() time.Duration { return orDefault(b.For, 10*time.Minute) }
