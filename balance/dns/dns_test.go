// SPDX-License-Identifier: Apache-2.0

package dns_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/balance/dns"
)

// nameServers answers questions in memory, for any number of addresses.
type nameServers struct {
	mu      sync.Mutex
	records map[string][]dnsmessage.Resource // by name and type
	silent  map[string]bool                  // servers that do not answer
	rcode   dnsmessage.RCode                 // of all answers, if not 0
	asked   []string                         // "network server name type"
	forge   bool                             // sends a forged message first
	bad     map[string]dnsmessage.RCode      // of answers to "name type"; 255 is none
}

func newNameServers() *nameServers {
	return &nameServers{records: make(map[string][]dnsmessage.Resource), silent: make(map[string]bool)}
}

// zone replaces all records. A line is "name ttl type data".
func (ns *nameServers) zone(t *testing.T, lines ...string) {
	t.Helper()
	ns.mu.Lock()
	defer ns.mu.Unlock()
	clear(ns.records)
	for _, line := range lines {
		f := strings.Fields(line)
		var ttl uint32
		_, err := fmt.Sscan(f[1], &ttl)
		require.NoError(t, err)
		h := dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(f[0]), Class: dnsmessage.ClassINET, TTL: ttl}
		var r dnsmessage.Resource
		switch f[2] {
		case "A":
			h.Type = dnsmessage.TypeA
			r.Body = &dnsmessage.AResource{A: [4]byte(net.ParseIP(f[3]).To4())}
		case "AAAA":
			h.Type = dnsmessage.TypeAAAA
			r.Body = &dnsmessage.AAAAResource{AAAA: [16]byte(net.ParseIP(f[3]))}
		case "CNAME":
			h.Type = dnsmessage.TypeCNAME
			r.Body = &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(f[3])}
		case "SRV":
			h.Type = dnsmessage.TypeSRV
			srv := &dnsmessage.SRVResource{Target: dnsmessage.MustNewName(f[6])}
			_, err := fmt.Sscan(strings.Join(f[3:6], " "), &srv.Priority, &srv.Weight, &srv.Port)
			require.NoError(t, err)
			r.Body = srv
		}
		r.Header = h
		ns.records[strings.ToLower(f[0])] = append(ns.records[strings.ToLower(f[0])], r)
	}
}

// dial returns a connection to a name server. On "udp" a write is a message.
func (ns *nameServers) dial(_ context.Context, network, addr string) (net.Conn, error) {
	c, s := net.Pipe()
	go ns.serve(s, network, addr)
	return c, nil
}

func (ns *nameServers) serve(c net.Conn, network, addr string) {
	defer c.Close()
	buf := make([]byte, 4096)
	var n int
	var err error
	if network == "tcp" {
		if _, err = io.ReadFull(c, buf[:2]); err == nil {
			n, err = io.ReadFull(c, buf[:binary.BigEndian.Uint16(buf)])
		}
	} else {
		n, err = c.Read(buf)
	}
	if err != nil {
		return
	}
	var q dnsmessage.Message
	if q.Unpack(buf[:n]) != nil {
		return
	}
	ns.mu.Lock()
	ns.asked = append(ns.asked, fmt.Sprintf("%s %s %s %s", network, addr, q.Questions[0].Name, strings.TrimPrefix(q.Questions[0].Type.String(), "Type")))
	reply, silent, forge := ns.answer(q, network), ns.silent[addr], ns.forge
	if code, ok := ns.bad[fmt.Sprint(q.Questions[0].Name, " ", strings.TrimPrefix(q.Questions[0].Type.String(), "Type"))]; ok {
		reply.RCode, reply.Answers, silent = code, nil, silent || code == 255
	}
	ns.mu.Unlock()
	if silent {
		_, _ = c.Read(buf) // until the client gives up
		return
	}
	if forge {
		forged := reply
		forged.ID++
		ns.send(c, network, forged)
	}
	ns.send(c, network, reply)
}

// answer makes the reply to q. Datagrams have room for four records.
func (ns *nameServers) answer(q dnsmessage.Message, network string) dnsmessage.Message {
	reply := dnsmessage.Message{Header: dnsmessage.Header{ID: q.ID, Response: true, RCode: ns.rcode}, Questions: q.Questions}
	name := strings.ToLower(q.Questions[0].Name.String())
	if _, known := ns.records[name]; !known && ns.rcode == 0 {
		reply.RCode = dnsmessage.RCodeNameError
	}
	for name != "" {
		next := ""
		for _, r := range ns.records[name] {
			if c, ok := r.Body.(*dnsmessage.CNAMEResource); ok {
				next = strings.ToLower(c.CNAME.String())
			} else if r.Header.Type != q.Questions[0].Type {
				continue
			}
			reply.Answers = append(reply.Answers, r)
		}
		name = next
	}
	if network == "udp" && len(reply.Answers) > 4 {
		reply.Answers, reply.Truncated = nil, true
	}
	return reply
}

func (ns *nameServers) send(c net.Conn, network string, m dnsmessage.Message) {
	msg, err := m.Pack()
	if err != nil {
		panic(err)
	}
	if network == "tcp" {
		msg = append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...)
	}
	_, _ = c.Write(msg)
}

// watch runs s and keeps what it says.
type watch struct {
	mu   sync.Mutex
	sets []string
	errs []error
}

func start(t *testing.T, s *dns.Source) *watch {
	w := new(watch)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() {
		ended <- s.Watch(ctx, func(eps []balance.Endpoint, err error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if err != nil {
				w.errs = append(w.errs, err)
				return
			}
			var set []string
			for _, e := range eps {
				set = append(set, fmt.Sprintf("%s/%d/%d", e.Addr, e.Weight, e.Tier))
			}
			w.sets = append(w.sets, strings.Join(set, " "))
		})
	}()
	t.Cleanup(func() {
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	})
	synctest.Wait()
	return w
}

func (w *watch) last() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.sets) == 0 {
		return "nothing"
	}
	return w.sets[len(w.sets)-1]
}

func (w *watch) firstErr() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.errs[0]
}

func (w *watch) count() (sets, errs int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.sets), len(w.errs)
}

func TestAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ns := newNameServers()
		ns.zone(t,
			"web.example. 60 CNAME www.example.",
			"www.example. 20 A 10.0.0.2",
			"www.example. 30 A 10.0.0.1",
			"www.example. 300 AAAA 2001:db8::1",
		)
		w := start(t, &dns.Source{Name: "web.example", Port: 80, Servers: []string{"ns1:53"}, DialContext: ns.dial, Jitter: -1})
		require.Equal(t, "10.0.0.1:80/0/0 10.0.0.2:80/0/0 [2001:db8::1]:80/0/0", w.last())

		// The shortest TTL is that of 10.0.0.2.
		ns.zone(t, "web.example. 60 A 10.0.0.9")
		time.Sleep(19 * time.Second)
		synctest.Wait()
		sets, _ := w.count()
		require.Equal(t, 1, sets)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, "10.0.0.9:80/0/0", w.last())
	})
}

func TestSRV(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ns := newNameServers()
		ns.zone(t,
			"_http._tcp.example. 60 SRV 10 3 8080 a.example.",
			"_http._tcp.example. 60 SRV 10 0 8080 b.example.",
			"_http._tcp.example. 60 SRV 20 1 8081 c.example.",
			"a.example. 60 A 10.0.0.1",
			"a.example. 60 A 10.0.0.2",
			"b.example. 60 A 10.0.0.3",
			"c.example. 60 AAAA 2001:db8::1",
		)
		var p balance.Pool
		src := &dns.Source{Name: "example", Service: "http", Servers: []string{"ns1:53"}, DialContext: ns.dial,
			Edit: func(e *balance.Endpoint) { e.MaxConns = 100 }}
		w := start(t, src)
		// A weight of 3 on two addresses is half as much on each; 0 is the least there
		// is.
		require.Equal(t, "10.0.0.1:8080/18/0 10.0.0.2:8080/18/0 10.0.0.3:8080/1/0 [2001:db8::1]:8081/12/1", w.last())

		ctx, cancel := context.WithCancel(context.Background())
		go func() { synctest.Wait(); cancel() }()
		require.ErrorIs(t, p.Follow(ctx, src), context.Canceled)
		require.Equal(t, 4, p.Usable())
		require.Equal(t, 100, p.Server("10.0.0.1:8080").Endpoint().MaxConns)
		require.Equal(t, "a.example", p.Server("10.0.0.1:8080").Endpoint().Labels["target"])
	})
}

func TestFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ns := newNameServers()
		ns.zone(t, "web.example. 10 A 10.0.0.1")
		ns.silent["ns1:53"] = true
		begin := time.Now()
		w := start(t, &dns.Source{Name: "web.example", Network: "ip4", Port: 80, Servers: []string{"ns1:53", "ns2:53"},
			DialContext: ns.dial, Jitter: -1, Hold: time.Minute})
		time.Sleep(2 * time.Second) // the first name server times out
		synctest.Wait()
		require.Equal(t, "10.0.0.1:80/0/0", w.last())
		require.Equal(t, 2*time.Second, time.Since(begin))

		// Both fail: the last good set stays for a minute.
		ns.mu.Lock()
		ns.rcode = dnsmessage.RCodeServerFailure
		ns.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, "10.0.0.1:80/0/0", w.last())
		_, errs := w.count()
		require.Greater(t, errs, 2)
		require.ErrorIs(t, w.firstErr(), dns.ErrNoAnswer)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		require.Equal(t, "", w.last(), "then there is none")

		// And it comes back.
		ns.mu.Lock()
		ns.rcode = dnsmessage.RCodeSuccess
		ns.mu.Unlock()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Equal(t, "10.0.0.1:80/0/0", w.last())
	})
}

func TestNegative(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ns := newNameServers()
		ns.zone(t, "web.example. 10 A 10.0.0.1")
		w := start(t, &dns.Source{Name: "web.example", Port: 80, Servers: []string{"ns1:53"}, DialContext: ns.dial, Jitter: -1, Hold: -1})
		ns.zone(t)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		require.Equal(t, "10.0.0.1:80/0/0", w.last(), "held for ever")
		require.ErrorIs(t, w.firstErr(), dns.ErrNoName)
	})
}

func TestTruncatedAndForged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ns := newNameServers()
		ns.forge = true
		var lines []string
		for i := range 50 {
			lines = append(lines, fmt.Sprintf("web.example. 10 A 10.0.0.%d", i))
		}
		ns.zone(t, lines...)
		ns.forge = false
		w := start(t, &dns.Source{Name: "web.example", Network: "ip4", Port: 80, Servers: []string{"ns1:53"}, DialContext: ns.dial})
		require.Len(t, strings.Fields(w.last()), 50)
		require.Equal(t, []string{"udp ns1:53 web.example. A", "tcp ns1:53 web.example. A"}, ns.asked)

		ns.zone(t, "web.example. 10 A 10.0.0.1")
		ns.mu.Lock()
		ns.forge = true
		ns.mu.Unlock()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Equal(t, "10.0.0.1:80/0/0", w.last())
		_, errs := w.count()
		require.Zero(t, errs, "a forged message is passed over")
	})
}

func TestBadSource(t *testing.T) {
	for _, test := range []struct {
		field string
		src   dns.Source
	}{
		{"Source.Name", dns.Source{Port: 80}},
		{"Source.Name", dns.Source{Name: strings.Repeat("x", 300), Port: 80}},
		{"Source.Port", dns.Source{Name: "example"}},
		{"Source.Network", dns.Source{Name: "example", Port: 1, Network: "ipx"}},
	} {
		err := test.src.Watch(context.Background(), func([]balance.Endpoint, error) {})
		var ce *penstock.ConfigError
		require.True(t, errors.As(err, &ce), "%v", err)
		require.Equal(t, test.field, ce.Field)
	}
}

// TestNameOfSRVRecords pins what a Source says that is given the name of SRV records as
// zones and dig have it: it used to ask for a port.
func TestNameOfSRVRecords(t *testing.T) {
	for _, src := range []dns.Source{{Name: "_http._tcp.a.example."}, {Name: "_http._TCP.a.example.", Service: "http"}} {
		require.EqualError(t, src.Check(), fmt.Sprintf(
			`penstock: Source.Name: %q must be the domain alone: write Service: "http", Proto: "tcp", Name: "a.example."`, src.Name))
	}
	for _, name := range []string{"_http.example", "_tcp._http.example", "http._tcp.example", "_._tcp.example", "_http.tcp.example"} {
		require.NoError(t, (&dns.Source{Name: name, Port: 80}).Check(), name)
	}
}

// TestUDP asks a name server on a real socket.
func TestUDP(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer pc.Close()
	ns := newNameServers()
	ns.zone(t, "web.example. 10 A 10.0.0.1")
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			var q dnsmessage.Message
			if q.Unpack(buf[:n]) == nil {
				m := ns.answer(q, "udp")
				if msg, err := m.Pack(); err == nil {
					_, _ = pc.WriteTo(msg, from)
				}
			}
		}
	}()
	ctx, cancel := context.WithCancelCause(context.Background())
	done := errors.New("seen")
	src := &dns.Source{Name: "web.example", Port: 80, Servers: []string{pc.LocalAddr().String()}}
	err = src.Watch(ctx, func(eps []balance.Endpoint, err error) {
		require.NoError(t, err)
		require.Equal(t, "10.0.0.1:80", eps[0].Addr)
		cancel(done)
	})
	require.ErrorIs(t, err, done)
}
