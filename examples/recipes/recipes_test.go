// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// hello answers and says who asks.
var hello = l7.HandlerFunc(func(x *l7.Exchange) {
	x.Respond(http.StatusOK, nil, "hello "+x.Header.Get("X-Auth-Request-Email"))
})

// serve serves h in memory, and returns a client for http://gateway.test/.
func serve(t *testing.T, h http.Handler) *http.Client {
	n := l4test.NewNetwork()
	ln, err := n.Listen("tcp", "gateway.test:80")
	require.NoError(t, err)
	server := &l7.Server{Handler: h}
	go func() { _ = server.Serve(ln) }()
	transport := &http.Transport{DialContext: n.DialContext}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = server.Close()
	})
	return &http.Client{Transport: transport}
}

// ask sends a request and returns the reply with its body.
func ask(t *testing.T, c *http.Client, method, path string, fields ...string) (*http.Response, string) {
	r, err := http.NewRequest(method, "http://gateway.test"+path, nil)
	require.NoError(t, err)
	for i := 0; i < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	res, err := c.Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res, string(body)
}

func TestCORS(t *testing.T) {
	c := serve(t, CORS(hello, "https://app.example"))
	res, body := ask(t, c, "GET", "/", "Origin", "https://app.example")
	require.Equal(t, "https://app.example", res.Header.Get("Access-Control-Allow-Origin"))
	require.Equal(t, "hello ", body)
	res, _ = ask(t, c, "OPTIONS", "/", "Origin", "https://app.example", "Access-Control-Request-Method", "PUT")
	require.Equal(t, http.StatusNoContent, res.StatusCode)
	require.Equal(t, "PUT", res.Header.Get("Access-Control-Allow-Methods"))
	res, _ = ask(t, c, "GET", "/", "Origin", "https://evil.example")
	require.Empty(t, res.Header.Get("Access-Control-Allow-Origin"))
}

func TestWAF(t *testing.T) {
	h, err := WAF(hello, `SecRuleRemoveById 920350`) // a Host that is a number
	require.NoError(t, err)
	c := serve(t, h)
	browser := []string{"Accept", "text/html", "User-Agent", "Mozilla/5.0"}
	res, body := ask(t, c, "GET", "/search?q=penstock", browser...)
	require.Equal(t, http.StatusOK, res.StatusCode)
	require.Equal(t, "hello ", body)
	for _, attack := range []string{"/?id=1%27%20OR%20%271%27=%271%27%20--%20", "/?q=%3Cscript%3Ealert(1)%3C/script%3E", "/?f=../../../../etc/passwd"} {
		res, body = ask(t, c, "GET", attack, browser...)
		require.Equal(t, http.StatusForbidden, res.StatusCode, attack)
		require.NotContains(t, body, "hello", attack)
	}
	_, err = WAF(hello, "SecNonsense On")
	require.ErrorContains(t, err, "secnonsense")
}

// writeCountries makes a file that says where two networks are.
func writeCountries(t *testing.T, file, first, second string) {
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "Test-Country", IncludeReservedNetworks: true})
	require.NoError(t, err)
	for network, code := range map[string]string{"192.0.2.0/25": first, "2001:db8::/32": second} {
		_, n, err := net.ParseCIDR(network)
		require.NoError(t, err)
		require.NoError(t, tree.Insert(n, mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String(code)}}))
	}
	var b bytes.Buffer
	_, err = tree.WriteTo(&b)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, b.Bytes(), 0o600))
}

func TestCountries(t *testing.T) {
	file := filepath.Join(t.TempDir(), "country.mmdb")
	writeCountries(t, file, "DE", "NZ")
	var c Countries
	at := func(addr string) *l7.Exchange { return &l7.Exchange{Client: netip.MustParseAddr(addr)} }
	require.Empty(t, c.Of(at("192.0.2.1")), "nothing is loaded")
	require.NoError(t, c.Load(file))
	for addr, want := range map[string]string{"192.0.2.1": "DE", "::ffff:192.0.2.1": "DE", "192.0.2.200": "", "2001:db8::1": "NZ", "127.0.0.1": ""} {
		require.Equal(t, want, c.Of(at(addr)), addr)
		require.Equal(t, want == "DE", c.In("FR", "DE").Match(at(addr)), addr)
	}
	require.Empty(t, c.Of(&l7.Exchange{}), "a client without an address")

	writeCountries(t, file, "FR", "NZ")
	require.NoError(t, c.Load(file))
	require.Equal(t, "FR", c.Of(at("192.0.2.1")))
	require.NoError(t, os.WriteFile(file, []byte("nonsense"), 0o600))
	require.ErrorContains(t, c.Load(file), file)
	require.Error(t, c.Load(file+".not"))
	require.Equal(t, "FR", c.Of(at("192.0.2.1")), "the old file stays")

	access := &l7.Access{Deny: c.In("FR"), Next: hello}
	client := serve(t, l7.HandlerFunc(func(x *l7.Exchange) {
		x.Client = netip.MustParseAddr(x.Header.Get("X-From"))
		l7.Serve(access, x)
	}))
	res, _ := ask(t, client, "GET", "/", "X-From", "192.0.2.1")
	require.Equal(t, http.StatusForbidden, res.StatusCode)
	res, _ = ask(t, client, "GET", "/", "X-From", "192.0.2.200")
	require.Equal(t, http.StatusOK, res.StatusCode)
}

// work does what the script of the page does.
func work(t *testing.T, page string, bits int) string {
	m := regexp.MustCompile(`encode\("([0-9a-f]{64})"\)`).FindStringSubmatch(page)
	require.NotNil(t, m, page)
	end := regexp.MustCompile(`proof-of-work=([0-9]+)\.`).FindStringSubmatch(page)
	require.NotNil(t, end, page)
	for n := 0; ; n++ {
		if zeroBits(sha256.Sum256(fmt.Appendf(nil, "%s%d", m[1], n))) >= bits {
			return fmt.Sprintf("%s.%d", end[1], n)
		}
	}
}

func TestChallenge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &Challenge{Secret: []byte("a secret of thirty-two bytes ...."), Bits: 10, For: time.Hour, Next: hello}
		c := serve(t, h)
		res, page := ask(t, c, "GET", "/dear")
		require.Equal(t, http.StatusForbidden, res.StatusCode)
		require.Equal(t, "no-store", res.Header.Get("Cache-Control"))
		proof := work(t, page, h.Bits)
		get := func(cookie string) int {
			res, _ := ask(t, c, "GET", "/dear", "Cookie", "a=b; "+cookie)
			return res.StatusCode
		}
		require.Equal(t, 200, get("proof-of-work="+proof))
		require.Equal(t, 200, get("proof-of-work=1.2; proof-of-work="+proof), "one of several")
		end, number, _ := strings.Cut(proof, ".")
		for _, bad := range []string{"", end, end + ".", end + "." + number + "x", "9" + proof, end + "0." + number, "x." + number, end + "." + strings.Repeat("0", 21)} {
			require.Equal(t, 403, get("proof-of-work="+bad), bad)
		}
		h.Secret = []byte("another secret")
		require.Equal(t, 403, get("proof-of-work="+proof))
		h.Secret = []byte("a secret of thirty-two bytes ....")
		require.Equal(t, 200, get("proof-of-work="+proof))
		time.Sleep(time.Hour)
		require.Equal(t, 403, get("proof-of-work="+proof), "it has ended")
	})
	one := (&Challenge{}).challenge(&l7.Exchange{Client: netip.MustParseAddr("2001:db8::1")}, "1")
	require.Equal(t, one, (&Challenge{}).challenge(&l7.Exchange{Client: netip.MustParseAddr("2001:db8::2")}, "1"))
	require.NotEqual(t, one, (&Challenge{}).challenge(&l7.Exchange{Client: netip.MustParseAddr("2001:db8:1::1")}, "1"))
}

func TestCollapse(t *testing.T) {
	type reply func(w http.ResponseWriter)
	for name, tt := range map[string]struct {
		fields []string
		reply  reply
		asked  int32 // of ten requests at once
	}{
		"shared":        {nil, func(w http.ResponseWriter) { w.Header().Set("Vary", "accept-encoding") }, 1},
		"cookie":        {[]string{"Cookie", "a=b"}, nil, 10},
		"login":         {[]string{"Authorization", "Basic x"}, nil, 10},
		"range":         {[]string{"Range", "bytes=0-1"}, nil, 10},
		"private":       {nil, func(w http.ResponseWriter) { w.Header().Set("Cache-Control", "max-age=1, Private") }, 10},
		"sets a cookie": {nil, func(w http.ResponseWriter) { w.Header().Set("Set-Cookie", "a=b") }, 10},
		"varies":        {nil, func(w http.ResponseWriter) { w.Header().Set("Vary", "Accept, User-Agent") }, 10},
		"an error":      {nil, func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) }, 10},
		"too long":      {nil, func(w http.ResponseWriter) { _, _ = io.WriteString(w, strings.Repeat("x", 2000)) }, 10},
		"flushed":       {nil, func(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() }, 10},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var asked atomic.Int32
				c := serve(t, &Collapse{MaxBytes: 1000, Next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					asked.Add(1)
					time.Sleep(time.Second)
					if tt.reply != nil {
						tt.reply(w)
					}
					_, _ = io.WriteString(w, "a page")
				})})
				bodies := make(chan string, 10)
				for range cap(bodies) {
					go func() {
						_, body := ask(t, c, "GET", "/page", tt.fields...)
						bodies <- body
					}()
				}
				for range cap(bodies) {
					require.True(t, strings.HasSuffix(<-bodies, "a page"))
				}
				require.Equal(t, tt.asked, asked.Load())
				_, body := ask(t, c, "GET", "/page", tt.fields...)
				require.True(t, strings.HasSuffix(body, "a page"))
				require.Equal(t, tt.asked+1, asked.Load(), "it is no cache")
			})
		})
	}
}

// The first client leaves, or its request panics: the others are not harmed, and do not all
// go to the server at once after a client that has left.
func TestCollapseWithoutTheFirst(t *testing.T) {
	for _, panics := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var asked atomic.Int32
			h := &Collapse{MaxBytes: 1000, Next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				first := asked.Add(1) == 1
				select {
				case <-time.After(time.Second):
				case <-r.Context().Done():
					return
				}
				if first && panics {
					panic(http.ErrAbortHandler)
				}
				_, _ = io.WriteString(w, "a page")
			})}
			get := func(ctx context.Context) string {
				w := httptest.NewRecorder()
				defer func() { _ = recover() }()
				h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/page", nil))
				return w.Body.String()
			}
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			go get(ctx)
			synctest.Wait()
			bodies := make(chan string, 10)
			for range cap(bodies) {
				go func() { bodies <- get(t.Context()) }()
			}
			synctest.Wait()
			if !panics {
				leave()
			}
			for range cap(bodies) {
				require.Equal(t, "a page", <-bodies)
			}
			if panics {
				require.Equal(t, int32(11), asked.Load())
			} else {
				require.Equal(t, int32(2), asked.Load())
			}
			require.Empty(t, h.flights)
		})
	}
}
