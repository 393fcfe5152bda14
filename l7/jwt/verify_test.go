// SPDX-License-Identifier: Apache-2.0

package jwt

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// An issuer signs with a key of Ed25519 unless told otherwise.
type issuer struct {
	private ed25519.PrivateKey
	key     Key
}

func newIssuer(t testing.TB) *issuer {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return &issuer{private, Key{ID: "1", Algorithm: "EdDSA", Public: public}}
}

type claims = map[string]any

// claims are those of a token that is good, with changes; nil removes one.
func (*issuer) claims(changes ...claims) jwt.MapClaims {
	c := jwt.MapClaims{"iss": "https://id.example", "aud": "shop", "sub": "ann", "exp": time.Now().Add(time.Hour).Unix()}
	for _, m := range changes {
		for k, v := range m {
			if c[k] = v; v == nil {
				delete(c, k)
			}
		}
	}
	return c
}

func (i *issuer) token(changes ...claims) string {
	return sign("EdDSA", i.private, "1", i.claims(changes...))
}

func sign(alg string, key any, kid string, c jwt.MapClaims) string {
	t := jwt.NewWithClaims(jwt.GetSigningMethod(alg), c)
	if kid != "" {
		t.Header["kid"] = kid
	}
	s, err := t.SignedString(key)
	if err != nil {
		panic(err)
	}
	return s
}

// verifier is a Verify that answers with what the servers would get.
func (i *issuer) verifier() *Verify {
	return &Verify{Keys: Static{i.key}, Issuer: "https://id.example", Audience: []string{"shop", "till"}, Next: show}
}

var show = l7.HandlerFunc(func(x *l7.Exchange) {
	var b strings.Builder
	b.WriteString(x.Path + x.Query + "\n")
	for n, v := range x.Header.All() {
		if n = http.CanonicalHeaderKey(n); n == "Authorization" || n == "Cookie" || strings.HasPrefix(n, "X") {
			b.WriteString(n + ": " + v + "\n")
		}
	}
	x.Respond(200, nil, b.String())
})

type answer struct {
	status    int
	body      string
	challenge string
	record    l7.Record
}

// ask asks h over the standard front.
func ask(h http.Handler, target string, fields ...string) (a answer) {
	r := httptest.NewRequest(http.MethodGet, "http://shop.example"+target, nil)
	for i := 0; i+1 < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	w := httptest.NewRecorder()
	l7.HandlerFunc(func(x *l7.Exchange) {
		l7.Serve(h, x)
		a.record = x.Record
	}).ServeHTTP(w, r)
	a.status, a.body, a.challenge = w.Code, w.Body.String(), w.Header().Get("WWW-Authenticate")
	return a
}

func bearerOf(token string) []string { return []string{"Authorization", "Bearer " + token} }

func TestVerify(t *testing.T) {
	i := newIssuer(t)
	var key l7.Key[*Token]
	h := i.verifier()
	h.Token, h.Realm = &key, "shop"
	h.ToRequest = []ToField{{"sub", "X-User"}, {"roles", "X-Roles"}, {"n", "X-N"}, {"none", "X-None"}}
	subject := ""
	h.Next = l7.HandlerFunc(func(x *l7.Exchange) {
		subject, _ = ByClaim(&key, "sub")(x)
		show(x)
	})
	require.NoError(t, h.Check())

	good := i.token(claims{"roles": []string{"a", "b,c"}, "n": int64(12345678901234567)})
	for n := range 3 {
		a := ask(h, "/p?q", "Authorization", "bearer "+good, "X-User", "root", "X_User", "root", "x-none", "1", "X-A", "stays")
		require.Equal(t, 200, a.status)
		require.Contains(t, a.body, "/p?q\n")
		require.Contains(t, a.body, "X-A: stays\n")
		require.Contains(t, a.body, "X-User: ann\n")
		require.Contains(t, a.body, "X-Roles: [\"a\",\"b,c\"]\nX-N: 12345678901234567\n")
		require.NotContains(t, a.body, "root")
		require.NotContains(t, a.body, "None")
		require.NotContains(t, a.body, "Authorization")
		require.Equal(t, "ann", a.record.User)
		require.Equal(t, []string{"jwt: valid", "jwt: valid, kept"}[min(n, 1)], a.record.Decision)
		require.Equal(t, "ann", subject)
	}
	a := ask(h, "/")
	require.Equal(t, 401, a.status)
	require.Equal(t, `Bearer realm="shop"`, a.challenge)
	require.Equal(t, "jwt: refused, no token", a.record.Decision)
	require.Equal(t, l4.Termination{Cause: l4.Denied, Phase: l4.PhaseRequest}, a.record.Termination)
	require.EqualError(t, a.record.Err, "jwt: no token")
}

func TestVerifyRefuses(t *testing.T) {
	i, other := newIssuer(t), newIssuer(t)
	now := time.Now()
	for _, test := range []struct {
		name, token string
		change      func(h *Verify)
		want        int
	}{
		{name: "good", token: i.token(), want: 200},
		{name: "aud as a list", token: i.token(claims{"aud": []string{"x", "till"}}), want: 200},
		{name: "other key", token: other.token(), want: 401},
		{name: "other issuer", token: i.token(claims{"iss": "https://id.example/"}), want: 401},
		{name: "no issuer", token: i.token(claims{"iss": nil}), want: 401},
		{name: "other audience", token: i.token(claims{"aud": "shops"}), want: 401},
		{name: "no audience", token: i.token(claims{"aud": nil}), want: 401},
		{name: "no end", token: i.token(claims{"exp": nil}), want: 401},
		{name: "over", token: i.token(claims{"exp": now.Add(-11 * time.Second).Unix()}), want: 401},
		{name: "within leeway", token: i.token(claims{"exp": now.Add(-5 * time.Second).Unix()}), want: 200},
		{name: "no leeway", token: i.token(claims{"exp": now.Add(-5 * time.Second).Unix()}), change: func(h *Verify) { h.Leeway = -1 }, want: 401},
		{name: "not yet", token: i.token(claims{"nbf": now.Add(time.Minute).Unix()}), want: 401},
		{name: "from the future", token: i.token(claims{"iat": now.Add(time.Minute).Unix()}), want: 401},
		{name: "end as text", token: i.token(claims{"exp": "never"}), want: 401},
		{name: "end beyond numbers", token: i.token(claims{"exp": json.Number("1e400")}), want: 401},
		{name: "required", token: i.token(), change: func(h *Verify) { h.Require = []string{"jti"} }, want: 401},
		{name: "required is there", token: i.token(claims{"jti": "1"}), change: func(h *Verify) { h.Require = []string{"jti"} }, want: 200},
		{name: "scope", token: i.token(claims{"scope": "read write"}), change: func(h *Verify) { h.Scopes = []string{"write"} }, want: 200},
		{name: "scp", token: i.token(claims{"scp": []string{"write"}}), change: func(h *Verify) { h.Scopes = []string{"write"} }, want: 200},
		{name: "no scope", token: i.token(claims{"scope": "read writer"}), change: func(h *Verify) { h.Scopes = []string{"write"} }, want: 403},
		{name: "type", token: i.token(), change: func(h *Verify) { h.Type = "at+jwt" }, want: 401},
		{name: "another algorithm", token: i.token(), change: func(h *Verify) { h.Algorithms = []string{"RS256"} }, want: 401},
		{name: "field cannot hold it", token: i.token(claims{"sub": "ann\r\nX-Admin: 1"}), want: 401},
		{name: "nor in one of ToRequest", token: i.token(claims{"name": "Ann\n"}), change: func(h *Verify) { h.ToRequest = []ToField{{"name", "X-Name"}} }, want: 401},
		{name: "space at an end", token: i.token(claims{"sub": "ann "}), want: 401},
		{name: "too long", token: i.token(claims{"a": strings.Repeat("a", 8<<10)}), want: 401},
		{name: "empty", token: "", want: 401},
		{name: "dots", token: "..", want: 401},
		{name: "no token", token: "abc", want: 401},
		{name: "cut", token: i.token()[:60], want: 401},
		{name: "padding", token: i.token() + "==", want: 401},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := i.verifier()
			if test.change != nil {
				test.change(h)
			}
			for range 2 { // what is refused is not kept
				a := ask(h, "/", bearerOf(test.token)...)
				require.Equal(t, test.want, a.status, "%v", a.record.Err)
				switch a.status {
				case 401:
					require.Contains(t, a.challenge, `error="invalid_token"`)
				case 403:
					require.Equal(t, `Bearer error="insufficient_scope", scope="write"`, a.challenge)
				}
				if a.status != 200 {
					require.Error(t, a.record.Err)
					require.Empty(t, a.record.User)
				}
			}
		})
	}
}

// The attacks that RFC 8725 names.
func TestRFC8725(t *testing.T) {
	i := newIssuer(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	der, err := x509.MarshalPKIXPublicKey(&rsaKey.PublicKey)
	require.NoError(t, err)
	file := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	rsaKeys, err := ParsePEM("", file)
	require.NoError(t, err)
	require.Equal(t, "RS256", rsaKeys[0].Algorithm)
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	h := i.verifier()
	h.Keys = append(Static{i.key, {ID: "ec", Algorithm: "ES256", Public: &p256.PublicKey}}, rsaKeys...)
	c := i.claims()

	forged := func(header string) string { // with the signature of a good token
		parts := strings.Split(i.token(), ".")
		return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + parts[1] + "." + parts[2]
	}
	unsigned := sign("none", jwt.UnsafeAllowNoneSignatureType, "1", c)
	for name, token := range map[string]string{
		"3.1 none":                    unsigned,
		"3.1 none in capitals":        strings.Replace(unsigned, strings.Split(unsigned, ".")[0], base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"NoNe","kid":"1"}`)), 1),
		"3.1 none with a signature":   forged(`{"alg":"none","kid":"1"}`),
		"3.1 no algorithm":            forged(`{"kid":"1"}`),
		"3.1 an algorithm of numbers": forged(`{"alg":1}`),
		"2.1 public key as a secret":  sign("HS256", file, "", c),
		"2.1 its DER as a secret":     sign("HS256", der, "", c),
		"2.1 modulus as a secret":     sign("HS256", rsaKey.N.Bytes(), "", c),
		"2.1 Ed25519 as a secret":     sign("HS256", []byte(i.key.Public.(ed25519.PublicKey)), "1", c),
		"3.2 another hash":            sign("RS512", rsaKey, "", c),
		"3.2 another padding":         sign("PS256", rsaKey, "", c),
		"2.4 empty signature":         strings.Join(strings.Split(i.token(), ".")[:2], ".") + ".",
		"3.10 kid of another key":     sign("EdDSA", i.private, "ec", c),
		"3.10 kid as a path":          sign("EdDSA", i.private, "../../dev/null", c),
		"3.10 crit":                   withHeader(i, "crit", []string{"exp"}),
		"3.10 no JSON":                forged(`{"alg":"EdDSA"`),
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, 401, ask(h, "/", bearerOf(token)...).status) })
	}
	// What names its own key is of no use: the fields are not looked at.
	require.Equal(t, 200, ask(h, "/", bearerOf(withHeader(i, "jku", "https://evil.example"))...).status)
	require.Equal(t, 200, ask(h, "/", bearerOf(sign("RS256", rsaKey, "", c))...).status)
	require.Equal(t, 200, ask(h, "/", bearerOf(sign("ES256", p256, "ec", c))...).status)

	weak := &rsa.PublicKey{N: rsaKey.N.Rsh(rsaKey.N, 1025), E: 65537}
	for name, k := range map[string]Key{
		"short RSA":     {Algorithm: "RS256", Public: weak},
		"short secret":  {Algorithm: "HS256", Public: []byte("secret")},
		"text":          {Algorithm: "HS256", Public: strings.Repeat("a", 32)},
		"none":          {Algorithm: "none", Public: []byte{}},
		"other curve":   {Algorithm: "ES384", Public: &p256.PublicKey},
		"RSA for HMAC":  {Algorithm: "HS256", Public: &rsaKey.PublicKey},
		"bytes for RSA": {Algorithm: "RS256", Public: file},
		"no key":        {Algorithm: "EdDSA"},
	} {
		require.Error(t, Static{k}.Check(), name)
		h.Keys = Static{k}
		require.Error(t, h.Check(), name)
	}
	h.Keys = Static{{Algorithm: "HS256", Public: []byte("short")}}
	require.Equal(t, 401, ask(h, "/", bearerOf(sign("HS256", []byte("short"), "", c))...).status, "nor is it used where nobody checks")
	secret := bytes.Repeat([]byte("s"), 32)
	h.Keys = Static{{Algorithm: "HS256", Public: secret}}
	require.Equal(t, 200, ask(h, "/", bearerOf(sign("HS256", secret, "", c))...).status)
}

func withHeader(i *issuer, name string, value any) string {
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, i.claims())
	t.Header[name] = value
	s, err := t.SignedString(i.private)
	if err != nil {
		panic(err)
	}
	return s
}

// Where the token is taken from, and that there is one only.
func TestVerifyFrom(t *testing.T) {
	i := newIssuer(t)
	good := i.token()
	field := func(name string) func(*Verify) { return func(h *Verify) { h.Header = name } }
	cookie := func(h *Verify) { h.Cookie = "t" }
	query := func(h *Verify) { h.Query = "access_token" }
	for _, test := range []struct {
		name   string
		change func(*Verify)
		target string
		fields []string
		want   int
		body   string
	}{
		{"two lines", nil, "/", []string{"Authorization", "Bearer " + good, "Authorization", "Bearer " + good}, 400, ""},
		{"beside Basic", nil, "/", []string{"Authorization", "Basic YTpi", "Authorization", "Bearer " + good}, 400, ""},
		{"Basic", nil, "/", []string{"Authorization", "Basic YTpi"}, 401, ""},
		{"no scheme", nil, "/", []string{"Authorization", good}, 401, ""},
		{"cookie not asked for", nil, "/", []string{"Cookie", "t=" + good}, 401, ""},
		{"a field", field("X-Token"), "/", []string{"x-token", good, "Authorization", "Basic YTpi"}, 200, "/\nAuthorization: Basic YTpi\n"},
		{"another spelling", field("X-Token"), "/", []string{"X_Token", good}, 401, ""},
		{"a field with a scheme", field("X-Token"), "/", []string{"X-Token", "Bearer " + good}, 200, "/\n"},
		{"a field twice", field("X-Token"), "/", []string{"X-Token", good, "X-Token", good}, 400, ""},
		{"an empty field", field("X-Token"), "/", []string{"X-Token", ""}, 401, ""},
		{"cookie", cookie, "/", []string{"Cookie", "a=b; t=" + good + "; c=d"}, 200, "/\nCookie: a=b; c=d\n"},
		{"first cookie", cookie, "/", []string{"Cookie", "t=" + good + "; c=d"}, 200, "/\nCookie: c=d\n"},
		{"only cookie", cookie, "/", []string{"Cookie", "t=" + good}, 200, "/\n"},
		{"cookie twice", cookie, "/", []string{"Cookie", "t=" + good + "; t=" + good}, 400, ""},
		{"cookie in two lines", cookie, "/", []string{"Cookie", "t=" + good, "Cookie", "t=x"}, 400, ""},
		{"case of a cookie", cookie, "/", []string{"Cookie", "T=" + good}, 401, ""},
		{"query", query, "/p?a=b&access_token=" + good + "&c", nil, 200, "/p?a=b&c\n"},
		{"only query", query, "/p?access_token=" + good, nil, 200, "/p\n"},
		{"encoded name", query, "/p?access%5Ftoken=" + good, nil, 200, "/p\n"},
		{"query twice", query, "/p?access_token=" + good + "&access%5ftoken=x", nil, 400, ""},
		{"query and field", func(h *Verify) { query(h); h.Header = "Authorization" }, "/p?access_token=" + good, []string{"Authorization", "Bearer " + good}, 400, ""},
		{"either", func(h *Verify) { cookie(h); h.Header = "Authorization" }, "/", []string{"Cookie", "t=" + good}, 200, "/\n"},
		{"forward", func(h *Verify) { h.Forward = true }, "/", bearerOf(good), 200, "/\nAuthorization: Bearer " + good + "\n"},
		{"forward a cookie", func(h *Verify) { cookie(h); h.Forward = true }, "/", []string{"Cookie", "t=" + good}, 200, "/\nCookie: t=" + good + "\n"},
		{"optional", func(h *Verify) { h.Optional = true }, "/", []string{"X-User", "root"}, 200, "/\n"},
		{"optional, but not valid", func(h *Verify) { h.Optional = true }, "/", bearerOf(good + "x"), 401, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := i.verifier()
			h.ToRequest = []ToField{{"nothing", "X-User"}}
			if test.change != nil {
				test.change(h)
			}
			require.NoError(t, h.Check())
			a := ask(h, test.target, test.fields...)
			require.Equal(t, test.want, a.status, "%v", a.record.Err)
			if test.want == 200 {
				require.Equal(t, test.body, a.body)
			}
			if test.want == 400 {
				require.Equal(t, `Bearer error="invalid_request"`, a.challenge)
			}
			require.NotContains(t, a.record.Query, good)
		})
	}
}

// A token that is kept ends when it does, and is not kept for longer than KeepFor.
func TestKeptTokensEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t)
		asked := 0
		h := i.verifier()
		h.Keys = KeyFunc(func(context.Context, string) ([]Key, error) { asked++; return []Key{i.key}, nil })
		short, long := bearerOf(i.token(claims{"exp": time.Now().Add(20 * time.Second).Unix()})), bearerOf(i.token())
		require.Equal(t, 200, ask(h, "/", short...).status)
		require.Equal(t, 200, ask(h, "/", long...).status)
		require.Equal(t, 2, asked)
		time.Sleep(29 * time.Second)
		require.Equal(t, 200, ask(h, "/", short...).status, "within the leeway")
		time.Sleep(2 * time.Second)
		a := ask(h, "/", short...)
		require.Equal(t, 401, a.status)
		require.Contains(t, a.challenge, "expired")
		require.Equal(t, 200, ask(h, "/", long...).status)
		require.LessOrEqual(t, asked, 3)
		asked = 0
		time.Sleep(30 * time.Second)
		require.Equal(t, 200, ask(h, "/", long...).status)
		require.Equal(t, 1, asked, "KeepFor is over")

		h.KeepFor = -1
		require.Equal(t, 200, ask(h, "/", bearerOf(i.token(claims{"jti": "1"}))...).status)
		require.Equal(t, 200, ask(h, "/", bearerOf(i.token(claims{"jti": "1"}))...).status)
		require.Equal(t, 3, asked)
	})
}

func TestNoKeysIsOurFault(t *testing.T) {
	i := newIssuer(t)
	h := i.verifier()
	h.Keys = KeyFunc(func(context.Context, string) ([]Key, error) { return nil, ErrNoKeys })
	a := ask(h, "/", bearerOf(i.token())...)
	require.Equal(t, 503, a.status)
	require.True(t, errors.Is(a.record.Err, ErrNoKeys))
	require.Equal(t, "jwt: no keys", a.record.Decision)
	require.Equal(t, 401, ask(h, "/").status)
}

// On the byte front and over HTTP/2.
func TestVerifyOnServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t)
		h := i.verifier()
		h.ToRequest = []ToField{{"sub", "X-User"}}
		n := l4test.NewNetwork()
		ln, err := n.Listen("tcp", "10.0.0.1:80")
		require.NoError(t, err)
		srv := &l7.Server{Handler: h}
		done := make(chan error, 1)
		go func() { done <- srv.Serve(ln) }()
		for _, http2 := range []bool{false, true} {
			tr := &http.Transport{DialContext: n.DialContext, Protocols: new(http.Protocols)}
			tr.Protocols.SetHTTP1(!http2)
			tr.Protocols.SetUnencryptedHTTP2(http2)
			for token, want := range map[string]int{i.token(): 200, "x": 401} {
				r, err := http.NewRequestWithContext(t.Context(), "GET", "http://10.0.0.1/", nil)
				require.NoError(t, err)
				r.Header.Set("Authorization", "Bearer "+token)
				r.Header.Set("X_user", "root")
				resp, err := tr.RoundTrip(r)
				require.NoError(t, err)
				var b bytes.Buffer
				_, _ = b.ReadFrom(resp.Body)
				resp.Body.Close()
				require.Equal(t, want, resp.StatusCode)
				if want == 200 {
					require.Equal(t, "/\nX-User: ann\n", b.String())
				}
			}
			tr.CloseIdleConnections()
		}
		require.NoError(t, srv.Shutdown(t.Context()))
		<-done
	})
}

func TestVerifyCheck(t *testing.T) {
	i := newIssuer(t)
	for field, change := range map[string]func(*Verify){
		"Keys":            func(h *Verify) { h.Keys = nil },
		"Algorithms":      func(h *Verify) { h.Algorithms = []string{"none"} },
		"Issuer":          func(h *Verify) { h.Issuer = "" },
		"Audience":        func(h *Verify) { h.Audience = nil },
		"ToRequest.Claim": func(h *Verify) { h.ToRequest = []ToField{{"", "X"}} },
		"ToRequest.Field": func(h *Verify) { h.ToRequest = []ToField{{"sub", "a b"}} },
		"Realm":           func(h *Verify) { h.Realm = `"` },
		"Cookie":          func(h *Verify) { h.Cookie = "a=b" },
		"Next":            func(h *Verify) { h.Next = nil },
		"Keys.JWKS.URL":   func(h *Verify) { h.Keys = &JWKS{URL: "http://id.example/"} },
	} {
		h := i.verifier()
		change(h)
		require.ErrorContains(t, h.Check(), "Verify."+field)
	}
	h := i.verifier()
	h.Issuer, h.Audience, h.AnyIssuer, h.AnyAudience = "", nil, true, true
	require.NoError(t, h.Check())
	require.Equal(t, 200, ask(h, "/", bearerOf(i.token(claims{"iss": nil, "aud": nil}))...).status)
}
