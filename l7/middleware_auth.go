// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bufio"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"

	"github.com/penstock-lb/penstock/l4"
)

// BasicAuth passes requests with a user and a password that Verify accepts (RFC
// 7617). Others get a 401 with a challenge, as do requests with more than one
// Authorization field, and user names that a field cannot hold: with control
// characters, or with leading or trailing space. Put a [Limit] before it: it
// does not count failures itself.
type BasicAuth struct {
	Realm string // "" means "restricted"; must not hold quotes or backslashes

	// Verify reports whether the password is the user's. It may be called by many
	// goroutines at once and should take the same time for unknown users. See
	// Passwords and HTPasswd.
	Verify func(user, password string) bool

	// Forward leaves the Authorization field in the request. By default the
	// server does not see the password.
	Forward bool

	// UserField, if set, is a request field that tells the server the user's name.
	// Such a field from the client is always removed, in both spellings
	// ([Fields.Set]).
	UserField string

	Next http.Handler

	checked
}

// User returns the name that [BasicAuth] accepted, or "".
func User(x *Exchange) string { return x.Record.User }

// ServeExchange implements [Handler].
func (h *BasicAuth) ServeExchange(x *Exchange) {
	user, password, ok := credentials(&x.Header)
	if !ok || !h.Verify(user, password) {
		h.refuse(x)
		return
	}
	if !h.Forward {
		x.Header.Del("Authorization")
	}
	if h.UserField != "" {
		x.Header.Set(h.UserField, user)
	}
	x.Record.User = user
	Serve(h.Next, x)
}

func (h *BasicAuth) refuse(x *Exchange) {
	realm := h.Realm
	if realm == "" {
		realm = "restricted"
	}
	x.OnReply(ReplyFunc(func(_ *Exchange, r *Reply) {
		r.Header.Set("WWW-Authenticate", `Basic realm="`+realm+`", charset="UTF-8"`)
	}))
	x.Error(http.StatusUnauthorized, endOf(l4.Denied, l4.PhaseRequest))
}

// credentials returns those of the only Authorization line. If there were
// several, a server might use another one than we check.
func credentials(f *Fields) (user, password string, ok bool) {
	value, n := "", 0
	for v := range f.Values("Authorization") {
		value, n = v, n+1
	}
	if n != 1 {
		return "", "", false
	}
	user, password, ok = basicAuth(value)
	// RFC 7617, section 2, forbids control characters, and a field loses the space
	// around its value: the name in UserField has to be the one that was checked.
	return user, password, ok && cleanValue(user) == user && validValue(password)
}

// basicAuth parses the credentials of RFC 7617, section 2.
func basicAuth(value string) (user, password string, ok bool) {
	const scheme = "basic "
	if len(value) < len(scheme) || !equalFold(value[:len(scheme)], scheme) {
		return "", "", false
	}
	var room [256]byte
	raw, err := base64.StdEncoding.AppendDecode(room[:0], unsafeBytes(strings.Trim(value[len(scheme):], " ")))
	if err != nil {
		return "", "", false
	}
	return strings.Cut(string(raw), ":")
}

// ServeHTTP implements [http.Handler].
func (h *BasicAuth) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(h, w, r) }

// Passwords returns a Verify over passwords by user, kept in memory as SHA-256
// sums. It takes the same time whether or not the user is known. Use it for
// random passwords; passwords chosen by people need a slow hash (HTPasswd).
func Passwords(users map[string]string) func(user, password string) bool {
	sums := make(map[string][sha256.Size]byte, len(users))
	for user, password := range users {
		sums[user] = sha256.Sum256([]byte(password))
	}
	return func(user, password string) bool {
		want, known := sums[user]
		have := sha256.Sum256([]byte(password))
		same := subtle.ConstantTimeCompare(want[:], have[:]) == 1
		return known && same
	}
}

// HTPasswd reads a file of user:hash lines, as htpasswd writes them, and
// returns a Verify. Compare reports whether a password matches a hash; with
// golang.org/x/crypto/bcrypt it is
//
//	func(hash, password string) bool {
//		return bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)) == nil
//	}
//
// For an unknown user it compares with the hash of another, so that the time
// does not reveal which users exist. As a slow hash computes for long, half of the
// processors compare at once (GOMAXPROCS, when HTPasswd is called), and other requests wait
// for that. Empty lines and those that begin with # are skipped; of two lines for one user
// the first is used.
func HTPasswd(file io.Reader, compare func(hash, password string) bool) (func(user, password string) bool, error) {
	hashes := make(map[string]string)
	other := ""
	lines := bufio.NewScanner(file)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		user, hash, ok := strings.Cut(line, ":")
		if !ok || user == "" || hash == "" {
			return nil, fmt.Errorf("l7: line %d of the password file is not user:hash", n)
		}
		if _, ok := hashes[user]; !ok {
			hashes[user] = hash
		}
		other = hash
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("l7: reading the password file: %w", err)
	}
	slots := make(chan struct{}, (runtime.GOMAXPROCS(0)+1)/2)
	return func(user, password string) bool {
		hash, known := hashes[user]
		if !known {
			hash = other
		}
		slots <- struct{}{}
		defer func() { <-slots }()
		return compare(hash, password) && known
	}, nil
}
