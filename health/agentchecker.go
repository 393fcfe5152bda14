// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// An AgentChecker polls the agents of servers and acts on their replies: it reports as
// [balance.Agent], and sets weight and limit.
//
// A reply takes effect at once, and holds until another reply contradicts it: a server
// that the agent called down is down until the agent says up, and one in drain or maint
// stays so until the agent says ready. An agent that cannot be reached, or sends an
// invalid line, changes nothing. Nor does the end of a Run: the next Run of the same
// AgentChecker continues with the same state, as in HAProxy when agents are disabled and
// enabled. Another AgentChecker begins without that state, as HAProxy after a reload.
//
// Other than in HAProxy, drain and maint of an agent are the agent's own: they
// neither change what the operator set, nor can its ready undo that. Weights
// are whole numbers, rounded up: give servers a weight of 100 if their agents
// speak in percent. Weight and limit hold until the next Set that changes them.
//
// The fields must not change once Run is called.
type AgentChecker struct {
	Pools []*balance.Pool // whose servers have agents
	Agent Agent

	Interval    time.Duration // from the start of a question to the start of the next; 0 means 2s
	Timeout     time.Duration // of one question; 0 means Interval, negative means none
	Jitter      float64       // as in Checker
	Spread      time.Duration // as in Checker: negative means none
	Concurrency int           // as in Checker

	OnReply func(*balance.Server, AgentReply, error) // called after each question by Run's own goroutine, must not block; may be nil
	Logger  *slog.Logger                             // for changes of state; nil means slog.Default()
	Seed    uint64                                   // of the jitter; 0 means at random

	running atomic.Bool
	said    map[*balance.Server]agentState // of Run's goroutine; it stays from one Run to the next
}

// Run asks until ctx is done, and returns its cause; see [Checker.Run].
func (a *AgentChecker) Run(ctx context.Context) error {
	if err := a.Check(); err != nil {
		return err
	}
	if !a.running.CompareAndSwap(false, true) {
		return ErrRunning
	}
	defer a.running.Store(false)
	a.forget()
	c := &Checker{
		Pools: a.Pools, Probe: Func(a.ask), Interval: a.Interval, Timeout: a.Timeout, Jitter: a.Jitter,
		Spread: a.Spread, Concurrency: a.Concurrency, Logger: a.Logger, Seed: a.Seed,
	}
	c.agents = a
	return c.Run(ctx)
}

// forget drops what is known of servers that have left since the last Run.
func (a *AgentChecker) forget() {
	said := make(map[*balance.Server]agentState)
	for _, p := range a.Pools {
		for s := range p.All() {
			if st, ok := a.said[s]; ok {
				said[s] = st
			}
		}
	}
	a.said = said
}

// answer carries an AgentReply out of a Probe.
type answer struct{ AgentReply }

func (*answer) Error() string { return "answered" }

// ask is the probe of the Checker that is the schedule.
func (a *AgentChecker) ask(ctx context.Context, e balance.Endpoint) error {
	r, err := a.Agent.Ask(ctx, e)
	if err != nil {
		return err
	}
	return &answer{r}
}

// agentState is what an agent has said of a server so far.
type agentState struct {
	said   AgentReply
	health balance.Health
	reason string
}

// take does what an agent says.
func (a *AgentChecker) take(t *target, err error, log *slog.Logger) {
	s := t.servers[0]
	var r AgentReply
	if got, ok := err.(*answer); ok {
		r, err = got.AgentReply, nil
		a.apply(s, r, log)
	}
	if a.OnReply != nil {
		tell(log, "OnReply", func() { a.OnReply(s, r, err) })
	}
}

func (a *AgentChecker) apply(s *balance.Server, r AgentReply, log *slog.Logger) {
	old := a.said[s]
	st := agentState{said: r.merge(old.said)}
	st.health, st.reason = r.judge(old.said)
	a.said[s] = st
	var errs [2]error
	if w, ok := r.weight(s.Endpoint()); ok {
		errs[0] = s.SetWeight(w)
	}
	if r.Limit != nil {
		errs[1] = s.SetMaxConns(*r.Limit)
	}
	for _, err := range errs {
		if err != nil {
			log.Warn("agent ignored", append(whose(a.Pools, s), "error", err)...)
		}
	}
	s.Report(balance.Agent, st.health, st.reason) // each time, as in round.tell
	if st.health != old.health {
		log.Log(context.Background(), levelOf(st.health), "agent changed", append(whose(a.Pools, s), "health", st.health.String(), "reason", st.reason)...)
	}
}
