// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/penstock-lb/penstock/balance"
)

// Agent asks an agent on the server: over a separate connection, usually to another port,
// the agent sends one line and closes. The line has words in any order, separated by
// spaces, tabs or commas:
//
//	up                    well
//	down stopped fail failed   not well
//	ready drain maint     what the server itself wants
//	75%                   its weight, as a share of the configured one; 0% means none
//	weight:30             its weight; 0 means none
//	maxconn:100           its limit; 0 means none
//	#anything             a reason, up to the end of the line
//
// An [AgentChecker] acts on the reply. As a [Probe], an Agent fails while the line has
// one of down, stopped, fail, failed or maint, and asks for a soft stop on drain or a
// weight of 0.
//
// Source: HAProxy configuration manual, 5.2, "agent-check".
type Agent struct {
	Connect Connect
	Send    string // what to send first, with its line end; empty means nothing
}

// An AgentReply is the reply of an agent. What it does not mention has the zero value.
type AgentReply struct {
	Health  string // "up", "down", "stopped", "fail" or "failed"
	Admin   string // "ready", "drain" or "maint"
	Percent *int   // of the configured weight
	Weight  *int
	Limit   *int   // most connections
	Text    string // the reason
}

// Ask returns the reply of the agent of e.
func (p Agent) Ask(ctx context.Context, e balance.Endpoint) (AgentReply, error) {
	s, err := p.Connect.open(ctx, e, 0)
	defer s.close()
	if err != nil {
		return AgentReply{}, err
	}
	s.step = "agent"
	if p.Send != "" {
		if err := s.send([]byte(p.Send)); err != nil {
			return AgentReply{}, err
		}
	}
	var line []byte
	for {
		b, err := s.r.ReadByte()
		if err == nil && b != '\n' && b != '\r' {
			line = append(line, b)
			continue
		}
		if err != nil && (!errors.Is(err, io.EOF) || len(line) == 0 || s.cut(err)) {
			return AgentReply{}, s.fail(err)
		}
		break // the end of the line, or of the connection
	}
	r, bad := parseReply(string(line))
	if bad != nil {
		return AgentReply{}, s.error(CodeProtocol, "%v", bad)
	}
	return r, nil
}

// parseReply reads an agent's line. An unknown word makes all of it invalid.
func parseReply(line string) (r AgentReply, err error) {
	line, text, _ := strings.Cut(line, "#")
	r.Text = printable(text)
	words := strings.FieldsFunc(line, func(c rune) bool { return c == ' ' || c == '\t' || c == ',' })
	for _, word := range words {
		word = strings.ToLower(word)
		percent, isPercent := strings.CutSuffix(word, "%")
		name, value, isPair := strings.Cut(word, ":")
		target := &r.Percent
		switch {
		case isPercent:
			value = percent
		case isPair && name == "weight":
			target = &r.Weight
		case isPair && name == "maxconn":
			target = &r.Limit
		case word == "up" || word == "down" || word == "stopped" || word == "fail" || word == "failed":
			r.Health = word
			continue
		case word == "ready" || word == "drain" || word == "maint":
			r.Admin = word
			continue
		default:
			return AgentReply{}, fmt.Errorf("unexpected word %q", printable(word))
		}
		n, err := strconv.ParseUint(value, 10, 16) // 65535, the largest weight
		if err != nil {
			return AgentReply{}, fmt.Errorf("unexpected word %q", printable(word))
		}
		v := int(n)
		*target = &v
	}
	if len(words) == 0 {
		return AgentReply{}, errors.New("the line is empty")
	}
	return r, nil
}

// Probe judges the reply of the agent.
func (p Agent) Probe(ctx context.Context, e balance.Endpoint) error {
	r, err := p.Ask(ctx, e)
	if err != nil {
		return err
	}
	none := r.Percent != nil && *r.Percent == 0 || r.Weight != nil && *r.Weight == 0
	switch health, reason := r.judge(AgentReply{}); {
	case health == balance.Down:
		return &Error{Code: CodeStatus, Step: "agent", Text: reason}
	case health == balance.Stopping:
		return &Error{Code: CodeStopping, Step: "agent", Text: reason}
	case none:
		return &Error{Code: CodeStopping, Step: "agent", Text: "no weight"}
	}
	return nil
}

// judge says what r means for a server of which the agent has said old before:
// down until it says up, and so for each kind of word.
func (r *AgentReply) judge(old AgentReply) (balance.Health, string) {
	health, admin := or(r.Health, old.Health), or(r.Admin, old.Admin)
	word, h := "up", balance.Up
	switch {
	case health != "" && health != "up":
		word, h = health, balance.Down
	case admin == "maint":
		word, h = admin, balance.Down
	case admin == "drain":
		word, h = admin, balance.Stopping
	}
	if text := or(r.Text, old.Text); text != "" && h != balance.Up {
		word += ": " + text
	}
	return h, word
}

// merge returns old with what r says on top.
func (r *AgentReply) merge(old AgentReply) AgentReply {
	old.Health, old.Admin = or(r.Health, old.Health), or(r.Admin, old.Admin)
	old.Percent, old.Weight, old.Limit = or(r.Percent, old.Percent), or(r.Weight, old.Weight), or(r.Limit, old.Limit)
	if r.Health != "" || r.Admin != "" {
		old.Text = r.Text
	}
	return old
}

// weight returns the weight that r asks for, with the configured one of e. It returns
// false if r does not mention it.
func (r *AgentReply) weight(e balance.Endpoint) (int, bool) {
	switch {
	case r.Percent != nil:
		configured := max(or(e.Weight, 1), 0)
		return min((configured**r.Percent+99)/100, balance.MaxWeight), true
	case r.Weight != nil:
		return *r.Weight, true
	}
	return 0, false
}
