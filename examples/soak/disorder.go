// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// servers is how many there are. One of them is spared in each round, so that what the
// gateways owe to clients is simple: no request that may be repeated is lost.
const servers = 4

// A storm is the disorder of a round.
type storm struct {
	l       *ledger
	rnd     *rand.Rand
	file    string // of discovery
	servers []*server
	gates   []*gate
	renews  *gate // the one that is restarted
	spared  int
	gone    map[int]bool // servers that are not in the file
}

// troubles are what a storm does, and how often in relation to each other.
var troubles = []struct {
	often int
	do    func(s *storm, srv *server) error
}{
	{4, func(s *storm, srv *server) error { s.l.event("%s goes down", srv.host); srv.down(); return nil }},
	{4, func(s *storm, srv *server) error { s.l.event("%s comes up", srv.host); return srv.up() }},
	{3, func(s *storm, srv *server) error { s.l.event("%s is healed", srv.host); return srv.heal() }},
	{3, func(s *storm, srv *server) error {
		s.l.event("%s resets its connections", srv.host)
		srv.reset()
		return nil
	}},
	{2, func(s *storm, srv *server) error { s.l.event("%s stalls", srv.host); srv.stall(true); return nil }},
	{2, func(s *storm, srv *server) error { s.l.event("%s flows", srv.host); srv.stall(false); return nil }},
	{2, func(s *storm, srv *server) error {
		s.l.event("%s refuses", srv.host)
		srv.refusing.Store(true)
		return nil
	}},
	{2, func(s *storm, srv *server) error {
		s.l.event("%s breaks off", srv.host)
		srv.cutting.Store(true)
		return nil
	}},
	{2, func(s *storm, srv *server) error {
		d := time.Duration(s.rnd.IntN(100)) * time.Millisecond
		s.l.event("%s is slow by %v", srv.host, d)
		srv.latency.Store(int64(d))
		return nil
	}},
	{4, func(s *storm, srv *server) error { return s.discover() }},
	{8, func(s *storm, srv *server) error { return s.steer(srv) }},
	{2, func(s *storm, srv *server) error {
		return s.fill(s.gates[s.rnd.IntN(len(s.gates))], s.rnd.IntN(2) == 0)
	}},
}

// run disturbs until ctx ends, then restores order.
func (s *storm) run(ctx context.Context, pause time.Duration) error {
	sum := 0
	for _, t := range troubles {
		sum += t.often
	}
	for {
		select {
		case <-time.After(time.Duration(s.rnd.ExpFloat64() * float64(pause))):
		case <-ctx.Done():
			return s.end()
		}
		who := s.rnd.IntN(servers - 1)
		if who >= s.spared {
			who++
		}
		n := s.rnd.IntN(sum)
		for _, t := range troubles {
			if n -= t.often; n < 0 {
				if err := t.do(s, s.servers[who]); err != nil {
					return err
				}
				break
			}
		}
	}
}

// renew restarts one gateway, and now and then kills it instead.
func (s *storm) renew(ctx context.Context, pause time.Duration, rnd *rand.Rand) error {
	for {
		select {
		case <-time.After(pause/2 + time.Duration(rnd.Int64N(int64(pause)))):
		case <-ctx.Done():
			return nil
		}
		do, what := s.renews.restart, "restarts"
		if rnd.IntN(4) == 0 {
			do, what = s.renews.crash, "is killed"
		}
		s.l.event("gateway %s %s", s.renews.name, what)
		if err := do(); err != nil {
			return err
		}
	}
}

// discover changes the file with the servers: one leaves or comes back, or it cannot be
// read, which must change nothing.
func (s *storm) discover() error {
	if s.rnd.IntN(4) == 0 {
		s.l.event("the file of servers is broken for a moment")
		if err := replace(s.file, "what is this?\n"); err != nil {
			return err
		}
		time.Sleep(300 * time.Millisecond)
		return s.list()
	}
	if who := s.rnd.IntN(servers); who != s.spared {
		s.gone[who] = !s.gone[who]
	}
	return s.list()
}

// list writes the file.
func (s *storm) list() error {
	var b strings.Builder
	for i, srv := range s.servers {
		if !s.gone[i] {
			fmt.Fprintln(&b, srv.host)
		}
	}
	s.l.event("discovered: %s", strings.Join(strings.Fields(b.String()), " "))
	return replace(s.file, b.String())
}

func replace(file, text string) error {
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// steer acts as an operator, on the admin page.
func (s *storm) steer(srv *server) error {
	g := s.gates[s.rnd.IntN(len(s.gates))]
	pools := []string{"web", "secure", "calls", "lines", "datagrams"}
	form := url.Values{"pool": {pools[s.rnd.IntN(len(pools))]}, "server": {srv.host}, "reason": {"soak"}}
	action := []string{"ready", "ready", "drain", "maint", "weight", "maxconns", "cut", "probe"}[s.rnd.IntN(8)]
	switch form.Set("action", action); action {
	case "weight":
		form.Set("value", strconv.Itoa(s.rnd.IntN(10)))
	case "maxconns":
		form.Set("value", strconv.Itoa(1+s.rnd.IntN(maxConns)))
	}
	begun := time.Now()
	status, err := g.act("/action", form)
	s.l.event("gateway %s: %s %s of %s %s: %d", g.name, action, form.Get("value"), form.Get("pool"), srv.host, status)
	switch {
	case g.crashedSince(begun), g.restartedSince(begun), status == http.StatusOK, status == http.StatusNotFound: // it is not in the file just then
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("gateway %s answers %d to the action %s", g.name, status, form.Encode())
}

// fill has the disk of the access log full, which /dev/full stands for, or rotates the
// log.
func (s *storm) fill(g *gate, full bool) error {
	err := os.Remove(g.config.Log)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	if full {
		if err := os.Symlink("/dev/full", g.config.Log); err != nil {
			return err
		}
	}
	s.l.event("gateway %s: its disk is full: %t", g.name, full)
	begun := time.Now()
	if status, err := g.act("/reopen", nil); status != http.StatusOK && !g.crashedSince(begun) && !g.restartedSince(begun) {
		return fmt.Errorf("reopening the log of gateway %s: %d, %w", g.name, status, err)
	}
	return nil
}

// end restores order.
func (s *storm) end() error {
	s.l.event("the storm ends")
	for _, srv := range s.servers {
		if err := srv.heal(); err != nil {
			return err
		}
	}
	clear(s.gone)
	if err := s.list(); err != nil {
		return err
	}
	for _, g := range s.gates {
		if err := s.fill(g, false); err != nil {
			return err
		}
	}
	return nil
}

// settle undoes what operators did, once all servers are in the pools again.
func (s *storm) settle() error {
	end := time.Now().Add(patience)
	for _, g := range s.gates {
		for pool := range ports {
			for _, srv := range s.servers {
				for action, value := range map[string]string{"ready": "", "weight": "1", "maxconns": strconv.Itoa(maxConns)} {
					form := url.Values{"pool": {pool}, "server": {srv.host}, "reason": {"calm"}, "action": {action}, "value": {value}}
					status, err := g.act("/action", form)
					for status == http.StatusNotFound && time.Now().Before(end) { // the gateway has not read the file again yet
						time.Sleep(50 * time.Millisecond)
						status, err = g.act("/action", form)
					}
					if status != http.StatusOK {
						return fmt.Errorf("gateway %s answers %d to %s of %s in pool %s: %v", g.name, status, action, srv.host, pool, err)
					}
				}
			}
		}
	}
	return nil
}
