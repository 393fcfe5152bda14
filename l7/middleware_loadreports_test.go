// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// loads returns what the server of that address has reported.
func loads(p *balance.Pool, addr string) map[string]float64 {
	got := map[string]float64{}
	for _, l := range p.Server(addr).Loads() {
		got[l.Name] = l.Value
	}
	return got
}

func TestLoadReports(t *testing.T) {
	for _, keep := range []bool{false, true} {
		for _, buffered := range []bool{false, true} {
			var pool *balance.Pool
			onBoth(t, func(s *site) http.Handler {
				s.origin("10.1.0.1:80", func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("X-Asked", r.Header.Get("Endpoint-Load-Metrics-Format"))
					w.Header().Set("Trailer", "Endpoint-Load-Metrics-Bin, X-Sum")
					w.Header().Set("Endpoint-Load-Metrics", r.Header.Get("X-Report"))
					_, _ = io.WriteString(w, "body")
					w.Header().Set("X-Sum", "1")
					w.Header().Set("Endpoint-Load-Metrics-Bin", "EZqZmZmZmbk/MQAAAAAAAABA")
				})
				proxy := s.proxy("10.1.0.1:80")
				pool = proxy.Pool
				next := http.Handler(proxy)
				if buffered {
					next = &BufferReply{Next: proxy}
				}
				return &LoadReports{Ask: true, Keep: keep, Next: next}
			}, func(s *site) {
				a := s.get("/", "X-Report", "TEXT named_metrics.queue=4")
				require.Equal(s, "body", a.body)
				require.Equal(s, "TEXT", a.Header.Get("X-Asked"))
				require.Equal(s, map[string]float64{"named_metrics.queue": 4, "mem_utilization": 0.1, "rps_fractional": 2}, loads(pool, "10.1.0.1:80"))
				require.Equal(s, keep, a.Header.Get("Endpoint-Load-Metrics") != "")
				require.Equal(s, "1", a.Trailer.Get("X-Sum"))
				require.Equal(s, keep, a.Trailer.Get("Endpoint-Load-Metrics-Bin") != "")

				s.get("/", "X-Report", `JSON {"named_metrics": {"queue": 5}}`)
				require.InDelta(s, 5, loads(pool, "10.1.0.1:80")["named_metrics.queue"], 0)
				s.get("/", "X-Report", "TEXT named_metrics.queue=x")
				require.InDelta(s, 5, loads(pool, "10.1.0.1:80")["named_metrics.queue"], 0, "a malformed report says nothing")
			})
		}
	}
}

// TestLoadReportsInInterimReplies: clients do not see them there either.
func TestLoadReportsInInterimReplies(t *testing.T) {
	for _, keep := range []bool{false, true} {
		onBoth(t, func(s *site) http.Handler {
			s.origin("10.1.0.1:80", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Endpoint-Load-Metrics", "TEXT cpu_utilization=0.5")
				w.Header().Set("Link", "</a>")
				w.WriteHeader(http.StatusEarlyHints)
				w.Header().Del("Endpoint-Load-Metrics")
			})
			return &LoadReports{Keep: keep, Next: s.proxy("10.1.0.1:80")}
		}, func(s *site) {
			var hints textproto.MIMEHeader
			ctx := httptrace.WithClientTrace(s.Context(), &httptrace.ClientTrace{Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
				hints = h
				return nil
			}})
			req, err := http.NewRequestWithContext(ctx, "GET", "http://10.0.0.1/", nil)
			require.NoError(s, err)
			resp, err := s.client.Do(req)
			require.NoError(s, err)
			resp.Body.Close()
			require.Equal(s, "</a>", hints.Get("Link"))
			require.Equal(s, keep, hints.Get("Endpoint-Load-Metrics") != "")
		})
	}
}

// TestLoadReportsOfNobody: what a member of this process or the gateway itself answers.
func TestLoadReportsOfNobody(t *testing.T) {
	pool := &balance.Pool{}
	require.NoError(t, pool.Set(balance.Endpoint{Name: "here", Value: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Endpoint-Load-Metrics", "cpu_utilization:0.5")
	})}))
	onBoth(t, func(s *site) http.Handler {
		local := HandlerFunc(func(x *Exchange) {
			h := MakeFields("Endpoint-Load-Metrics", "TEXT cpu_utilization=1")
			x.Respond(200, &h, "")
		})
		return &LoadReports{Next: NewRouter(Route{Match: Path("/local"), Handler: local}, Route{Handler: &Proxy{Pool: pool}})}
	}, func(s *site) {
		require.Empty(s, s.get("/local").Header.Get("Endpoint-Load-Metrics"))
		a := s.get("/")
		require.Empty(s, a.Header.Get("Endpoint-Load-Metrics"))
		require.Equal(s, map[string]float64{"cpu_utilization": 0.5}, loads(pool, "here"))
	})
}

// TestLoadReportsAreForTheNextPick closes the circle.
func TestLoadReportsAreForTheNextPick(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		for addr, report := range map[string]string{"10.1.0.1:80": "0.9", "10.1.0.2:80": "0.2"} {
			s.origin(addr, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Endpoint-Load-Metrics", "TEXT cpu_utilization="+report)
				_, _ = io.WriteString(w, addr)
			})
		}
		pool := &balance.Pool{Seed: 1, Policy: balance.Scored{Scorers: []balance.Scorer{{Metric: "cpu_utilization", Weight: 10}}}}
		require.NoError(s, pool.Set(balance.Endpoint{Addr: "10.1.0.1:80"}, balance.Endpoint{Addr: "10.1.0.2:80"}))
		return &LoadReports{Next: s.proxyTo(pool)}
	}, func(s *site) {
		busy := 0
		for range 40 {
			if s.get("/").body == "10.1.0.1:80" {
				busy++
			}
		}
		require.Less(s, busy, 10, "until both have reported each gets a half")
		for range 20 {
			require.Equal(s, "10.1.0.2:80", s.get("/").body)
		}
	})
}
