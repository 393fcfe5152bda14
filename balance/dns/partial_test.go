// SPDX-License-Identifier: Apache-2.0

package dns_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/balance/dns"
)

const noAnswer dnsmessage.RCode = 255

func (ns *nameServers) fail(question string, code dnsmessage.RCode) {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.bad == nil {
		ns.bad = make(map[string]dnsmessage.RCode)
	}
	if delete(ns.bad, question); code != dnsmessage.RCodeSuccess {
		ns.bad[question] = code
	}
}

// wait lets that time pass.
func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// However one family fails, the other's answer counts, and the failure is told
// once.
func TestOneFamilyFails(t *testing.T) {
	for _, code := range []dnsmessage.RCode{
		dnsmessage.RCodeFormatError, dnsmessage.RCodeServerFailure, dnsmessage.RCodeNotImplemented, dnsmessage.RCodeRefused, dnsmessage.RCodeNameError, noAnswer,
	} {
		for _, family := range []string{"A", "AAAA"} {
			t.Run(fmt.Sprintf("%s %d", family, code), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ns := newNameServers()
					ns.zone(t, "web.example. 60 A 10.0.0.1", "web.example. 60 AAAA 2001:db8::1")
					ns.fail("web.example. "+family, code)
					w := start(t, &dns.Source{Name: "web.example", Port: 80, Servers: []string{"ns1:53"}, DialContext: ns.dial, Jitter: -1})
					wait(200 * time.Millisecond)
					want := "10.0.0.1:80/0/0"
					if family == "A" {
						want = "[2001:db8::1]:80/0/0"
					}
					require.Equal(t, want, w.last(), "at once, if the other is silent too")
					wait(59 * time.Second)
					require.Equal(t, want, w.last())
					if _, errs := w.count(); code == dnsmessage.RCodeNameError {
						require.Zero(t, errs)
					} else {
						require.Equal(t, 1, errs)
						require.ErrorIs(t, w.firstErr(), dns.ErrNoAnswer)
					}
					ns.fail("web.example. "+family, dnsmessage.RCodeSuccess)
					wait(90 * time.Second)
					require.Equal(t, "10.0.0.1:80/0/0 [2001:db8::1]:80/0/0", w.last(), "it is asked for again")
				})
			})
		}
	}
}

// A question that fails keeps its last answer for Hold, while the others go on.
func TestAFailedQuestionKeepsItsAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ns := newNameServers()
		ns.zone(t, "web.example. 10 A 10.0.0.1", "web.example. 10 AAAA 2001:db8::1")
		w := start(t, &dns.Source{Name: "web.example", Port: 80, Servers: []string{"ns1:53"}, DialContext: ns.dial, Jitter: -1, Hold: time.Minute})
		ns.zone(t, "web.example. 10 A 10.0.0.2")
		ns.fail("web.example. AAAA", dnsmessage.RCodeServerFailure)
		wait(50 * time.Second)
		require.Equal(t, "10.0.0.2:80/0/0 [2001:db8::1]:80/0/0", w.last())
		wait(30 * time.Second)
		require.Equal(t, "10.0.0.2:80/0/0", w.last(), "Hold is over")
	})
}

func TestATargetFails(t *testing.T) {
	zone := []string{
		"_http._tcp.example. 10 SRV 10 1 80 a.example.",
		"_http._tcp.example. 10 SRV 10 1 80 b.example.",
		"a.example. 10 A 10.0.0.1",
		"b.example. 10 A 10.0.0.2",
	}
	both, one := "10.0.0.1:80/12/0 10.0.0.2:80/12/0", "10.0.0.1:80/12/0"
	synctest.Test(t, func(t *testing.T) {
		ns := newNameServers()
		ns.zone(t, zone...)
		w := start(t, &dns.Source{Name: "example", Service: "http", Network: "ip4", Servers: []string{"ns1:53"}, DialContext: ns.dial, Jitter: -1, Hold: time.Minute})
		require.Equal(t, both, w.last())
		ns.fail("b.example. A", noAnswer)
		wait(50 * time.Second)
		require.Equal(t, both, w.last(), "its servers stay")
		wait(40 * time.Second)
		require.Equal(t, one, w.last(), "for Hold")
		ns.fail("b.example. A", dnsmessage.RCodeSuccess)
		wait(90 * time.Second)
		require.Equal(t, both, w.last())
		ns.fail("_http._tcp.example. SRV", dnsmessage.RCodeServerFailure)
		ns.zone(t, append(zone, "a.example. 10 A 10.0.0.9")...)
		wait(20 * time.Second)
		require.Equal(t, "10.0.0.1:80/6/0 10.0.0.9:80/6/0 10.0.0.2:80/12/0", w.last(), "new addresses of the old targets")
		ns.fail("_http._tcp.example. SRV", dnsmessage.RCodeSuccess)
		ns.zone(t, zone[0], zone[1], zone[2])
		wait(20 * time.Second)
		require.Equal(t, one, w.last(), "a target that is gone is gone at once")
	})
}

// Silent targets cost the time of one, and the others are told before.
func TestTargetsAreAskedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ns := newNameServers()
		var zone []string
		for i := range 40 {
			zone = append(zone, fmt.Sprintf("_http._tcp.example. 60 SRV 10 1 80 h%d.example.", i), fmt.Sprintf("h%d.example. 60 A 10.0.0.%d", i, i))
			if i%10 == 0 {
				ns.fail(fmt.Sprintf("h%d.example. A", i), noAnswer)
			}
		}
		ns.zone(t, zone...)
		w := start(t, &dns.Source{Name: "example", Service: "http", Network: "ip4", Servers: []string{"ns1:53"}, DialContext: ns.dial, Jitter: -1})
		require.Equal(t, "nothing", w.last())
		wait(200 * time.Millisecond)
		require.Len(t, strings.Fields(w.last()), 36, "the first set does not wait")
		wait(3800 * time.Millisecond)
		sets, errs := w.count()
		require.Equal(t, 2, sets, "two tries of two seconds, all at once")
		require.Equal(t, 1, errs)
	})
}

func TestWeightsOfSRVAreScaled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ns := newNameServers()
		ns.zone(t,
			"_http._tcp.example. 60 SRV 10 60000 80 a.example.", "a.example. 60 A 10.0.0.1",
			"_http._tcp.example. 60 SRV 10 30000 80 b.example.", "b.example. 60 A 10.0.0.2", "b.example. 60 A 10.0.0.3",
			"_http._tcp.example. 60 SRV 10 6000 80 c.example.", "c.example. 60 A 10.0.0.4",
			"_http._tcp.example. 60 SRV 10 0 80 d.example.", "d.example. 60 A 10.0.0.5",
			"_http._tcp.example. 60 SRV 20 10 80 e.example.", "e.example. 60 A 10.0.0.6",
		)
		w := start(t, &dns.Source{Name: "example", Service: "http", Network: "ip4", Servers: []string{"ns1:53"}, DialContext: ns.dial})
		require.Equal(t, "10.0.0.1:80/65535/0 10.0.0.2:80/16383/0 10.0.0.3:80/16383/0 10.0.0.4:80/6553/0 10.0.0.5:80/1/0 10.0.0.6:80/120/1", w.last())
	})
}

// The order of an answer is random; two records of one address do not make a set that
// changes with it.
func TestTwoRecordsOfOneServer(t *testing.T) {
	records := []string{"_http._tcp.example. 60 SRV 10 3 80 a.example.", "_http._tcp.example. 60 SRV 10 1 80 a.example.", "_http._tcp.example. 60 SRV 20 9 80 a.example."}
	for i := range records {
		synctest.Test(t, func(t *testing.T) {
			ns := newNameServers()
			ns.zone(t, append(append([]string{"a.example. 60 A 10.0.0.1"}, records[i:]...), records[:i]...)...)
			w := start(t, &dns.Source{Name: "example", Service: "http", Network: "ip4", Servers: []string{"ns1:53"}, DialContext: ns.dial})
			require.Equal(t, "10.0.0.1:80/36/0", w.last())
		})
	}
}

// A record that names no port is told of, and costs a pool none of the others.
func TestAServerWithoutPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ns := newNameServers()
		ns.zone(t, "a.example. 60 A 10.0.0.1", "b.example. 60 A 10.0.0.2", "_http._tcp.example. 60 SRV 10 1 80 a.example.", "_http._tcp.example. 60 SRV 10 1 0 b.example.")
		p := &balance.Pool{OnEvent: func(balance.Event) {}, AllowEmpty: true}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		src := &dns.Source{Name: "example", Service: "http", Network: "ip4", Servers: []string{"ns1:53"}, DialContext: ns.dial, Hold: time.Minute}
		go func() { defer close(done); _ = p.Follow(ctx, src) }()
		defer func() { cancel(); <-done }()
		const told = "dns: an SRV record of _http._tcp.example names port 0 of b.example., which is left out"
		for range 3 {
			synctest.Wait()
			st, _ := p.SourceState()
			require.EqualError(t, st.Err, told)
			require.NotNil(t, p.Server("10.0.0.1:80"))
			require.Equal(t, 1, p.Usable())
			time.Sleep(time.Minute)
		}
		ns.zone(t, "_http._tcp.example. 60 SRV 10 1 0 b.example.")
		time.Sleep(5 * time.Minute)
		require.Equal(t, 0, p.Usable(), "after Hold")
	})
}

// Name servers with a blocklist answer 0.0.0.0 or ::, by which this machine is reached. That
// is no server. While there is no other, the last set stays, and after Hold there is none.
func TestUnspecifiedAddressIsLeftOut(t *testing.T) {
	for zero, kind := range map[string]string{"0.0.0.0": "A", "::": "AAAA", "::ffff:0.0.0.0": "AAAA"} {
		synctest.Test(t, func(t *testing.T) {
			blocked := "web.example. 60 " + kind + " " + zero
			ns := newNameServers()
			ns.zone(t, "web.example. 60 A 10.0.0.1", blocked)
			p := &balance.Pool{AllowEmpty: true, OnEvent: func(balance.Event) {}}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			src := &dns.Source{Name: "web.example", Port: 80, Servers: []string{"ns1:53"}, DialContext: ns.dial, Hold: 10 * time.Minute}
			go func() { defer close(done); _ = p.Follow(ctx, src) }()
			defer func() { cancel(); <-done }()
			shown := strings.TrimPrefix(zero, "::ffff:")
			told := func() {
				t.Helper()
				st, _ := p.SourceState()
				require.EqualError(t, st.Err, "dns: an address of web.example is "+shown+", which is left out: it names no server, and a connection to it reaches this machine")
			}
			servers := func() (names []string) {
				for s := range p.All() {
					names = append(names, s.Name())
				}
				return names
			}
			time.Sleep(time.Second)
			told()
			require.Equal(t, []string{"10.0.0.1:80"}, servers())

			ns.zone(t, blocked)
			time.Sleep(5 * time.Minute)
			told()
			require.Equal(t, []string{"10.0.0.1:80"}, servers())
			time.Sleep(10 * time.Minute)
			require.Empty(t, servers(), "after Hold")

			ns.zone(t, "web.example. 60 A 10.0.0.2")
			time.Sleep(time.Minute)
			require.Equal(t, []string{"10.0.0.2:80"}, servers())
			st, _ := p.SourceState()
			require.NoError(t, st.Err)
		})
	}
}

// A server that cannot be reached, or is found down, has the source look before the TTL
// is over, but not more often than Retry, and ever less while that shows nothing new.
func TestFailingServersHaveItLookAgain(t *testing.T) {
	for _, how := range []string{"dial", "check"} {
		synctest.Test(t, func(t *testing.T) {
			ns := newNameServers()
			ns.zone(t, "web.example. 3600 A 10.0.0.1")
			p := &balance.Pool{OnEvent: func(balance.Event) {}}
			fail := func() {
				s := p.Server("10.0.0.1:80")
				if s == nil {
					return
				}
				if how == "check" {
					s.Report(balance.Check, balance.Up, "")
					s.Report(balance.Check, balance.Down, "refused")
					return
				}
				l, err := p.Acquire(t.Context(), balance.Request{})
				require.NoError(t, err)
				l.Done(balance.Outcome{Class: balance.ConnectFailed})
			}
			src := &dns.Source{Name: "web.example", Network: "ip4", Port: 80, Servers: []string{"ns1:53"}, DialContext: ns.dial, Jitter: -1, MaxTTL: 10 * time.Minute}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); _ = p.Follow(ctx, balance.Merge{Sources: []balance.Source{src}}) }()
			synctest.Wait()
			asked := func() int { ns.mu.Lock(); defer ns.mu.Unlock(); return len(ns.asked) }
			require.Equal(t, 1, asked())
			wait(time.Minute)
			require.Equal(t, 1, asked())
			fail()
			synctest.Wait()
			require.Equal(t, 2, asked(), "Retry has passed long since")
			for range 100 {
				fail()
			}
			wait(9 * time.Second)
			require.Equal(t, 2, asked(), "nothing new: twice as long")
			wait(time.Second)
			require.Equal(t, 3, asked())
			ns.zone(t, "web.example. 3600 A 10.0.0.2")
			fail()
			wait(20 * time.Second)
			require.NotNil(t, p.Server("10.0.0.2:80"))
			wait(time.Minute)
			require.Equal(t, 4, asked())
			cancel()
			<-done
		})
	}
}

// The addresses of a name that is gone stay, and it is said where one looks.
func TestAGoneNameIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ns := newNameServers()
		ns.zone(t, "web.example. 10 A 10.0.0.1")
		p := &balance.Pool{OnEvent: func(balance.Event) {}}
		src := &dns.Source{Name: "web.example", Network: "ip4", Port: 80, Servers: []string{"ns1:53"}, DialContext: ns.dial, Jitter: -1}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		_, ok := p.SourceState()
		require.False(t, ok)
		go func() { defer close(done); _ = p.Follow(ctx, src) }()
		synctest.Wait()
		st, ok := p.SourceState()
		require.True(t, ok)
		require.Equal(t, balance.SourceState{Good: time.Now()}, st)
		require.Equal(t, "10.0.0.1:80: used", p.Explain()[0].String())
		good := time.Now()
		ns.zone(t)
		wait(3 * time.Hour)
		st, _ = p.SourceState()
		require.Equal(t, 1, p.Usable())
		require.Equal(t, good, st.Good)
		require.Equal(t, good.Add(10*time.Second), st.Since)
		require.ErrorIs(t, st.Err, dns.ErrNoName)
		require.Contains(t, p.Explain()[0].String(), "10.0.0.1:80: used: may be out of date since "+st.Since.Format(time.RFC3339)+": dns: no such name")
		ns.zone(t, "web.example. 10 A 10.0.0.1")
		wait(10 * time.Second)
		require.Equal(t, "10.0.0.1:80: used", p.Explain()[0].String())
		cancel()
		<-done
	})
}

// A name server that names more targets than there is time for costs memory and
// time in proportion, and no more questions at once than are good.
func TestManyTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ns := newNameServers()
		var zone []string
		for i := range 500 {
			zone = append(zone, fmt.Sprintf("_http._tcp.example. 60 SRV 10 1 80 h%d.example.", i), fmt.Sprintf("h%d.example. 60 A 10.0.%d.%d", i, i/250, i%250))
		}
		ns.zone(t, zone...)
		open, most := 0, 0
		dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
			ns.mu.Lock()
			open++
			most = max(most, open)
			ns.mu.Unlock()
			c, err := ns.dial(ctx, network, addr)
			return &counted{c, func() { ns.mu.Lock(); open--; ns.mu.Unlock() }}, err
		}
		w := start(t, &dns.Source{Name: "example", Service: "http", Servers: []string{"ns1:53"}, DialContext: dial})
		require.Len(t, strings.Fields(w.last()), 500)
		require.LessOrEqual(t, most, 16)
	})
}

type counted struct {
	net.Conn
	closed func()
}

func (c *counted) Close() error {
	if c.closed != nil {
		c.closed()
		c.closed = nil
	}
	return c.Conn.Close()
}

// A dialer of the host that panics is a name server that does not answer.
func TestADialerThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &dns.Source{Name: "web.example", Port: 80, Servers: []string{"ns1:53"},
			DialContext: func(context.Context, string, string) (net.Conn, error) { panic("boom") }})
		require.ErrorIs(t, w.firstErr(), dns.ErrNoAnswer)
		require.ErrorContains(t, w.firstErr(), "boom")
		require.False(t, errors.Is(w.firstErr(), dns.ErrNoName))
	})
}

// Nor does one that returns a nil pointer, and no connection is left beside an error.
func TestADialerOfNoConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &dns.Source{Name: "web.example", Port: 80, Servers: []string{"ns1:53"},
			DialContext: func(context.Context, string, string) (net.Conn, error) { return (*net.UDPConn)(nil), nil }})
		require.ErrorContains(t, w.firstErr(), "Source.DialContext has returned no connection")
	})
	synctest.Test(t, func(t *testing.T) {
		ours, peer := net.Pipe()
		w := start(t, &dns.Source{Name: "web.example", Port: 80, Servers: []string{"ns1:53"},
			DialContext: func(context.Context, string, string) (net.Conn, error) { return ours, errors.New("refused here") }})
		require.ErrorContains(t, w.firstErr(), "refused here")
		peer.SetReadDeadline(time.Now().Add(time.Second))
		_, err := peer.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
	})
}

// A question that fails is asked again after Retry, and ever later, however
// long the answers of the others are valid.
func TestFailedQuestionsAreAskedAgainSooner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ns := newNameServers()
		ns.zone(t, "web.example. 300 A 10.0.0.1", "web.example. 300 AAAA 2001:db8::1")
		ns.fail("web.example. AAAA", dnsmessage.RCodeServerFailure)
		w := start(t, &dns.Source{Name: "web.example", Port: 80, Servers: []string{"ns1:53"}, DialContext: ns.dial, Jitter: -1})
		wait(6 * time.Second)
		ns.fail("web.example. AAAA", dnsmessage.RCodeSuccess)
		require.Equal(t, "10.0.0.1:80/0/0", w.last())
		wait(9 * time.Second)
		require.Equal(t, "10.0.0.1:80/0/0 [2001:db8::1]:80/0/0", w.last())
	})
}

// TestAServiceThatIsGoneForAMomentForgetsNoAddresses has the name of the service not exist
// for one look, and then a target that fails.
func TestAServiceThatIsGoneForAMomentForgetsNoAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ns := newNameServers()
		ns.zone(t, "_http._tcp.example. 10 SRV 10 1 80 a.example.", "_http._tcp.example. 10 SRV 10 1 80 b.example.",
			"a.example. 10 A 10.0.0.1", "b.example. 10 A 10.0.0.2")
		w := start(t, &dns.Source{Name: "example", Service: "http", Network: "ip4", Servers: []string{"ns1:53"}, DialContext: ns.dial, Jitter: -1})
		ns.fail("_http._tcp.example. SRV", dnsmessage.RCodeNameError)
		wait(12 * time.Second)
		ns.fail("_http._tcp.example. SRV", dnsmessage.RCodeSuccess)
		ns.fail("b.example. A", dnsmessage.RCodeServerFailure)
		wait(20 * time.Second)
		_, errs := w.count()
		require.Equal(t, 2, errs, "both failures were seen")
		require.Equal(t, "10.0.0.1:80/12/0 10.0.0.2:80/12/0", w.last(), "its servers stay")
	})
}

// TestEditedLabelsAreNoNews has Edit write into the labels of a service's endpoints: a
// server that stays down must not have the source ask each time after Retry.
func TestEditedLabelsAreNoNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ns := newNameServers()
		ns.zone(t, "_http._tcp.example. 3600 SRV 10 1 80 a.example.", "a.example. 3600 A 10.0.0.1")
		p := &balance.Pool{OnEvent: func(balance.Event) {}}
		src := &dns.Source{Name: "example", Service: "http", Network: "ip4", Servers: []string{"ns1:53"}, DialContext: ns.dial, Jitter: -1, MaxTTL: time.Hour,
			Edit: func(e *balance.Endpoint) { e.Labels["rack"] = "7" }}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = p.Follow(ctx, src) }()
		synctest.Wait()
		for range 600 {
			p.Server("10.0.0.1:80").Report(balance.Check, balance.Up, "")
			p.Server("10.0.0.1:80").Report(balance.Check, balance.Down, "refused")
			wait(time.Second)
		}
		ns.mu.Lock()
		asked := len(ns.asked)
		ns.mu.Unlock()
		require.Less(t, asked, 20, "ever later")
		cancel()
		<-done
	})
}
