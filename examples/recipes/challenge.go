// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"crypto/hmac"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"math/bits"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/penstock-lb/penstock/l7"
)

//go:embed challenge.html
var challengePage string

// Challenge lets a client pass once its browser has worked for it: the script of the page
// looks for a number which, behind the challenge, has a SHA-256 that begins with Bits zero
// bits, and keeps it in a cookie. A person waits for a moment; a bot that opens many
// connections without a browser gets nothing, and one with a browser pays for each address.
//
// Nothing is stored: the challenge is a signature over the client's network and an end. Routes
// for machines (an API, a health check, /robots.txt) go around it.
type Challenge struct {
	Secret []byte        // signs challenges, the same in all gateways; 32 random bytes
	Bits   int           // 2^Bits hashes are needed on average; 14 takes a browser about a second
	For    time.Duration // how long the work counts
	Next   http.Handler
}

// proofCookie holds END.NUMBER: the end of the challenge in Unix time, and the number found.
const proofCookie = "proof-of-work"

// ServeExchange implements [l7.Handler].
func (c *Challenge) ServeExchange(x *l7.Exchange) {
	for line := range x.Header.Values("Cookie") {
		cookies, _ := http.ParseCookie(line)
		for _, k := range cookies {
			if k.Name == proofCookie && c.proved(x, k.Value) {
				l7.Serve(c.Next, x)
				return
			}
		}
	}
	end := strconv.FormatInt(time.Now().Add(c.For).Unix(), 10)
	page := strings.NewReplacer("{{cookie}}", proofCookie, "{{challenge}}", c.challenge(x, end), "{{bits}}", strconv.Itoa(c.Bits),
		"{{end}}", end, "{{seconds}}", strconv.Itoa(int(c.For.Seconds()))).Replace(challengePage)
	header := l7.MakeFields("Content-Type", "text/html; charset=utf-8", "Cache-Control", "no-store")
	x.Respond(http.StatusForbidden, &header, page)
}

// ServeHTTP implements http.Handler.
func (c *Challenge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l7.HandlerFunc(c.ServeExchange).ServeHTTP(w, r)
}

// challenge returns what the client of x has to work on until end. It is bound to the network
// that a host or a household has, since an address of IPv6 changes each day.
func (c *Challenge) challenge(x *l7.Exchange, end string) string {
	size := 32
	if x.Client.Is6() && !x.Client.Is4In6() {
		size = 64
	}
	network, _ := x.Client.Unmap().Prefix(size) // the zero one for a client without an address
	mac := hmac.New(sha256.New, c.Secret)
	mac.Write([]byte(network.String() + " " + end))
	return hex.EncodeToString(mac.Sum(nil))
}

// proved reports whether the value of a cookie is a proof of work that still counts.
func (c *Challenge) proved(x *l7.Exchange, value string) bool {
	end, number, _ := strings.Cut(value, ".")
	until, err := strconv.ParseInt(end, 10, 64)
	left := time.Until(time.Unix(until, 0))
	if err != nil || len(number) > 20 || left <= 0 || left > c.For+time.Second {
		return false
	}
	return zeroBits(sha256.Sum256([]byte(c.challenge(x, end)+number))) >= c.Bits
}

// zeroBits returns how many bits at the beginning of sum are 0.
func zeroBits(sum [sha256.Size]byte) int {
	for i, b := range sum {
		if b != 0 {
			return 8*i + bits.LeadingZeros8(b)
		}
	}
	return 8 * len(sum)
}
