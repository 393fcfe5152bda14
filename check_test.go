// SPDX-License-Identifier: Apache-2.0

package penstock_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/balance/dns"
	"github.com/penstock-lb/penstock/balance/file"
	"github.com/penstock-lb/penstock/health"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/accesslog"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/l7/admin"
	"github.com/penstock-lb/penstock/ratelimit"
)

// The tests of this file hold every literal of the public interface to one
// rule: it has a method Check, and Check finds a required field that is missing,
// a negative number that means nothing, a NaN, and the mistakes of whatever a
// field holds. A literal that is new has to be put into one of the two lists.

// checkedDirs are the packages whose literals are looked at.
var checkedDirs = []string{"balance", "balance/dns", "balance/file", "health", "ratelimit", "l4", "l4/accesslog", "l7", "l7/admin"}

// goodLiterals have the required fields, and no others.
func goodLiterals() []any {
	pools := []*balance.Pool{{}}
	observed := &balance.Pool{OnOutcome: []func(*balance.Server, balance.Outcome){func(*balance.Server, balance.Outcome) {}}}
	next := &l7.Deny{}
	law := ratelimit.GCRA{Rate: ratelimit.PerSecond(1)}
	return []any{
		balance.Budget{},
		balance.Endpoint{Addr: "a.example:80"},
		balance.Locality{},
		balance.Maglev{},
		balance.Merge{Sources: []balance.Source{balance.Static()}},
		balance.PeakEWMA{},
		balance.Poll{Func: func(context.Context) ([]balance.Endpoint, error) { return nil, nil }},
		&balance.Pool{},
		&balance.Portion{Source: balance.Static(), Share: &balance.Share{Of: pools[0], Self: "a"}},
		balance.Rendezvous{},
		balance.Ring{},
		balance.Scored{},
		balance.Scorer{Metric: "queue"},
		&balance.Share{Of: pools[0], Self: "a"},
		balance.SlowStart{},
		balance.Tiers{},
		balance.TwoChoices{},
		&dns.Source{Name: "a.example", Port: 80},
		&file.Source{Path: "servers"},

		&admin.Handler{},
		admin.Keys[string]{Keyed: &ratelimit.Keyed[string]{Law: law}, Parse: func(s string) (string, error) { return s, nil }},

		health.Agent{},
		&health.AgentChecker{Pools: pools},
		health.All{},
		health.Any{health.TCP{}},
		&health.Checker{Pools: pools},
		health.Connect{},
		&health.Divided{Share: &balance.Share{Of: pools[0], Self: "a"}, Board: new(health.MemoryBoard)},
		health.GRPC{},
		health.HTTP{},
		health.Field{Name: "X-A"},
		health.Exec{Path: os.Args[0]},
		health.HeaderMatch{Name: "X-Up"},
		health.LDAP{},
		health.MySQL{},
		health.Observe{},
		&health.Outlier{Pool: observed},
		health.PostgreSQL{},
		health.Redis{},
		health.SMTP{},
		health.Script{},
		health.StatusRange{From: 200},
		health.Step{},
		health.TCP{},
		health.TLS{},

		&l7.Access{Next: next},
		l7.AddField{Name: "X"},
		l7.All{},
		&l7.BasicAuth{Verify: l7.Passwords(nil), Next: next},
		&l7.BufferBody{Next: next},
		&l7.LimitBody{Next: next},
		&l7.LoadReports{Next: next},
		&l7.BufferReply{Next: next},
		&l7.Fault{Status: 503, Next: next},
		&l7.ForwardAuth{Service: next, Next: next},
		&l7.ForwardClientCert{Next: next},
		&l7.VerifyClient{Clients: &l4.ClientVerifier{CAFiles: []string{"ca.pem"}}, Next: next},
		&l7.Capture{Next: next},
		&l7.CircuitBreaker{Breaker: new(ratelimit.Breaker), Next: next},
		&l7.Choose{By: func(*l7.Exchange) http.Handler { return nil }},
		l7.ClientIn{},
		l7.ContentType("image/*"),
		l7.Cookie{Name: "beta"},
		l7.DelField{Name: "X"},
		&l7.Deny{},
		&l7.EditHeader{Next: next},
		&l7.ErrorPages{Next: next},
		l7.Fallback{{Handler: next}},
		&l7.FixedReply{},
		&l7.Gate{Places: &ratelimit.Concurrency{Max: 1}, Next: next},
		l7.HandlerFunc(func(*l7.Exchange) {}),
		&l7.HashBy[string]{Key: l7.ByPath, Next: next},
		l7.Header{Name: "X"},
		l7.Hedge{},
		l7.Host("*.example.com"),
		l7.HostRegexp{Regexp: regexp.MustCompile("a")},
		&l7.Limit[netip.Addr]{Limiter: &ratelimit.Keyed[netip.Addr]{Law: law}, Next: next},
		l7.LocalIn{},
		l7.LocalPort(80),
		l7.MatchFunc(func(*l7.Exchange) bool { return true }),
		l7.Method("GET"),
		&l7.Mirror{To: next},
		&l7.Monitor{Next: next},
		&l7.Normalize{Next: next},
		&l7.Underscores{Next: next},
		&l7.Misdirected{Next: next},
		l7.Any{},
		l7.ALPN("h2"),
		l7.JA4("t13d1516h2_8daaf6152771_b186095e22b6"),
		l7.Query{Name: "a"},
		l7.Path("/a"),
		l7.PathPattern("/a/{b}"),
		l7.PathPrefix("/a"),
		l7.PathRegexp{Regexp: regexp.MustCompile("a")},
		l7.PathSuffix(".png"),
		&l7.Persist{Pool: observed, Next: next},
		l7.PoolUsable{Pool: observed},
		&l7.Proxy{Pool: observed},
		&l7.Redirect{To: func(*l7.Exchange) string { return "" }},
		l7.RemoteIn{},
		l7.RemotePorts{To: 80},
		l7.ReplaceField{Name: "X", Regexp: regexp.MustCompile("a")},
		&l7.RequestID{Next: next},
		&l7.ProxyStatus{Name: "edge", Next: next},
		l7.Retry{},
		&l7.Rewrite{Next: next},
		&l7.Router{},
		l7.SNI("a.example"),
		l7.Scheme("https"),
		&l7.Server{},
		l7.SetField{Name: "X"},
		l7.NewSplit(l7.Arm{Name: "a", Weight: 1, Handler: l7.Drop{}}),
		&l7.Stick{Key: l7.ByPath, Next: next},
		&l7.StickTable{},
		l7.TLS{},
		&l7.Tarpit{},
		&l7.Transport{Pool: observed},
		&l7.TrustForwarded{Next: next},
		&l7.Wrap{With: func(h http.Handler) http.Handler { return h }, Next: next},
		&l7.Upstream{},

		&l4.AcceptPostgreSQL{Next: l4.Reject{}},
		&l4.AcceptProxy{Next: l4.Reject{}},
		l4.Bandwidth{},
		&l4.CertificateFiles{Pairs: []l4.KeyPair{{CertFile: "a.pem"}}, Certificates: new(l4.Certificates)},
		&l4.Certificates{},
		&l4.ClientVerifier{CAFiles: []string{"ca.pem"}},
		&l4.Dialer{Pool: observed},
		&l4.Limit{Next: l4.Reject{}, All: new(l4Limiter)},
		&l4.OriginateTLS{},
		&l4.ListenConfig{},
		&l4.PacedListener{Listener: new(l4.Listener), Rate: new(l4Limiter)},
		&l4.Proxy{Pool: observed},
		&l4.Router{Routes: make([]l4.Route, 1)},
		&l4.SendProxy{},
		&l4.Server{Handler: l4.Reject{}},
		l4.KeyPair{CertFile: "a.pem"},
		l4.SocketOptions{},
		&accesslog.File{Path: "log"},
		&l4.TicketKeys{Keys: [][]byte{bytes.Repeat([]byte("k"), 32)}},
		&l4.TerminateTLS{Next: l4.Reject{}, Config: &tls.Config{Certificates: make([]tls.Certificate, 1)}},
		&l4.Throttle{Next: l4.Reject{}},
		&l4.QUIC{},
		&l4.UDPProxy{Pool: observed},

		&ratelimit.Adaptive{},
		ratelimit.Ban{},
		&ratelimit.Breaker{},
		&ratelimit.Bucket{Rate: ratelimit.PerSecond(1)},
		&ratelimit.Concurrency{Max: 1},
		ratelimit.GCRA{Rate: ratelimit.PerSecond(1)},
		ratelimit.InFlight{Max: 1},
		&ratelimit.Keyed[string]{Law: law},
		&ratelimit.Leased[string]{Shared: &ratelimit.Shared[string]{Store: new(ratelimit.MemoryStore), Law: law, Gateways: func() int { return 1 }}},
		&ratelimit.Limiter{Law: law},
		&ratelimit.MemoryStore{},
		ratelimit.Rate{Count: 1},
		&ratelimit.Shared[string]{Law: law},
		&ratelimit.Shedder{},
		ratelimit.Window{Rate: ratelimit.PerSecond(1)},
	}
}

// l4Limiter is a host's own.
type l4Limiter struct{}

func (l4Limiter) Take(int) ratelimit.Decision { return ratelimit.Decision{} }

// notChecked are structs that cannot be wrong, and why.
var notChecked = map[string]string{
	"balance.Event":       "is told",
	"balance.Explanation": "is told",
	"balance.Histogram":   "is told",
	"balance.Load":        "is told",
	"balance.Operator":    "is told",
	"balance.Outcome":     "is told to the pool",
	"balance.Queue":       "every value means something",
	"balance.Report":      "is told",
	"balance.Request":     "every value means something",
	"balance.ServerStats": "is told",
	"balance.SourceState": "is told",
	"balance.Stats":       "is told",
	"balance.View":        "is given to policies",

	"l7.AddrMap":          "is not configured",
	"l7.Arm":              "is checked by its Split",
	"l7.Captured":         "is told",
	"l7.ClientCert":       "every value means something",
	"l7.Drop":             "every value means something",
	"l7.Entry":            "every value means something",
	"l7.Exchange":         "is given to handlers",
	"l7.ForwardAuthError": "is told",
	"l7.RouteExplanation": "is told",
	"l7.RouteStats":       "is told",
	"l7.Stats":            "is told",
	"l7.FrontLimits":      "is told",
	"l7.UpstreamStats":    "is told",
	"l7.Field":            "is given to handlers",
	"l7.PoolChoice":       "is checked by its Fallback",
	"l7.PrefixEntry":      "every value means something",
	"l7.Record":           "is told",
	"l7.Reply":            "is given to editors",
	"l7.RefusedError":     "is told",
	"l7.Route":            "is checked by its Router",
	"l7.RouteError":       "is told",
	"l7.SetForwarded":     "every value means something",
	"l7.TransportError":   "is told",
	"l7.Try":              "is told",
	"l4.TimeoutError":     "is told",
	"l7.TimeoutError":     "is told",

	"accesslog.Stats":    "is told",
	"l4.Attach":          "every value means something",
	"l4.Buffer":          "is not configured",
	"l4.BufferPool":      "every value means something",
	"l4.ClientCertError": "is told",
	"l4.ClientHello":     "is told",
	"l4.Listener":        "every value means something",
	"l4.Peeked":          "is given to matchers",
	"l4.ProxyHeader":     "is checked by AppendBinary",
	"l4.ProxySSL":        "is part of a ProxyHeader",
	"l4.QUICRoute":       "is checked by its QUIC",
	"l4.Record":          "is told",
	"l4.RelayOptions":    "every value means something",
	"l4.RelayResult":     "is told",
	"l4.Reload":          "is told",
	"l4.Restart":         "every value means something",
	"l4.Route":           "is checked by its Router",
	"l4.ServerError":     "is told",
	"l4.Stats":           "is told",
	"l4.Sticky":          "every value means something",
	"l4.TLV":             "is checked by AppendBinary",
	"l4.Tarpit":          "every value means something",
	"l4.Termination":     "is told",

	"admin.Action":        "is told",
	"admin.ActionView":    "is told",
	"admin.CheckView":     "is told",
	"admin.ConnsView":     "is told",
	"admin.ExplainView":   "is told",
	"admin.FrontView":     "is told",
	"admin.LimitVerdict":  "is told",
	"admin.LoadView":      "is told",
	"admin.LimitView":     "is told",
	"admin.PoolVerdict":   "is told",
	"admin.PoolView":      "is told",
	"admin.Problem":       "is told",
	"admin.ReportView":    "is told",
	"admin.RouteVerdict":  "is told",
	"admin.RouteView":     "is told",
	"admin.ServerVerdict": "is told",
	"admin.ServerView":    "is told",
	"admin.Snapshot":      "is told",
	"admin.SourceView":    "is told",

	"file.Error":      "is told",
	"file.ParseError": "is told",

	"health.Ejection":   "is told",
	"health.Error":      "is told",
	"health.Match":      "every value means something",
	"health.AgentReply": "is told",
	"health.Result":     "is told",
	"health.Status":     "is told",
	"health.Told":       "is told",

	"health.MemoryBoard": "every value means something",

	"ratelimit.Bandwidth":      "every value means something",
	"l4.Client":                "is told",
	"l7.BodyError":             "is told",
	"ratelimit.BreakerChange":  "is told",
	"ratelimit.BreakerPermit":  "is told",
	"ratelimit.CPUPressure":    "every value means something",
	"ratelimit.Decision":       "is told",
	"ratelimit.SchedulerDelay": "every value means something",
	"ratelimit.Stats":          "is told",
}

// heldMistakes are wrong values by the type of the field that may hold them.
func heldMistakes() []any {
	return []any{
		balance.TwoChoices{N: -1}, balance.Scorer{Metric: "queue", Weight: -1}, balance.SlowStart{Floor: 2}, balance.Tiers{Overprovision: -1}, balance.Locality{Share: 2},
		balance.Budget{Share: math.NaN()}, balance.Poll{}, &balance.Pool{Panic: 2},
		health.Connect{Port: -1}, health.Agent{Connect: health.Connect{Port: -1}}, health.Observe{Errors: -1}, health.Any{},
		health.StatusRange{}, health.HeaderMatch{}, health.Step{Min: -1}, health.Field{},
		&l7.Deny{Status: 99}, l7.PathPrefix("x"), l7.DelField{}, l7.Retry{Statuses: []int{1}}, l7.Hedge{Delay: -1}, &l7.Mirror{}, &l7.StickTable{Max: -1},
		&l7.Upstream{Reuse: 99}, &ratelimit.Concurrency{},
		l4.SocketOptions{UserTimeout: -1}, &l4.ClientVerifier{}, l4.KeyPair{}, &l4.Limit{}, l4.Bandwidth{All: &ratelimit.Limiter{}}, &ratelimit.Limiter{}, &ratelimit.Keyed[netip.Addr]{},
		ratelimit.Rate{}, ratelimit.GCRA{}, ratelimit.Ban{After: 1 << 20}, &ratelimit.MemoryStore{Max: -1}, &ratelimit.Keyed[string]{},
	}
}

func TestEveryLiteralIsChecked(t *testing.T) {
	listed := map[string]bool{}
	for _, v := range goodLiterals() {
		listed[typeName(v)] = true
		_, ok := v.(interface{ Check() error })
		require.True(t, ok, "%T has no Check", v)
	}
	for name := range notChecked {
		require.False(t, listed[name], "%s is in both lists", name)
		listed[name] = true
	}
	for _, d := range declarations(t) {
		if d.hasFields || d.hasCheck {
			require.True(t, listed[d.name], "%s is in neither list: give it a Check, or say why it needs none", d.name)
		}
		delete(listed, d.name)
	}
	require.Empty(t, listed, "no such types")
}

func TestGoodLiteralsPass(t *testing.T) {
	for _, v := range goodLiterals() {
		require.NoError(t, check(v), "%T", v)
	}
}

// TestCheckFindsWhatIsMissing takes away each field of the good literals.
func TestCheckFindsWhatIsMissing(t *testing.T) {
	eachField(t, func(t *testing.T, name string, copied func() (any, reflect.Value)) {
		v, f := copied()
		if !f.IsZero() {
			f.SetZero()
			requireField(t, check(v), name)
		}
	})
}

// TestCheckFindsWhatIsNegative gives each number a negative one, which is a mistake
// unless its comment says what that means, and each float NaN.
func TestCheckFindsWhatIsNegative(t *testing.T) {
	docs := map[string]string{}
	for _, d := range declarations(t) {
		for field, doc := range d.docs {
			docs[d.name+"."+field] = doc
		}
	}
	eachField(t, func(t *testing.T, name string, copied func() (any, reflect.Value)) {
		v, f := copied()
		doc, ok := docs[strings.TrimPrefix(t.Name(), "TestCheckFindsWhatIsNegative/")]
		require.True(t, ok || f.Kind() == reflect.Interface || f.Kind() == reflect.Pointer, t.Name()) // what is embedded
		spoken := strings.Contains(strings.Join(strings.Fields(doc), " "), "negative means ")
		switch {
		case f.CanFloat():
			f.SetFloat(math.NaN())
			requireField(t, check(v), name)
			f.SetFloat(-1)
		case f.CanInt():
			f.SetInt(-1)
		default:
			return
		}
		switch err := check(v); {
		case !spoken:
			requireField(t, err, name)
		case err != nil:
			require.NotContains(t, err.Error(), name+":", "its comment says what negative means")
		}
	})
}

// TestCheckFindsWhatIsHeld puts something wrong into each field that can hold it,
// and a nil into each list of interfaces and pointers.
func TestCheckFindsWhatIsHeld(t *testing.T) {
	eachField(t, func(t *testing.T, name string, copied func() (any, reflect.Value)) {
		for _, wrong := range heldMistakes() {
			v, f := copied()
			w := reflect.ValueOf(wrong)
			switch {
			case f.Type().Kind() == reflect.Interface && f.Type().NumMethod() == 0:
			case w.Type().AssignableTo(f.Type()):
				f.Set(w)
				requireField(t, check(v), name)
			case f.Kind() == reflect.Slice && w.Type().AssignableTo(f.Type().Elem()):
				f.Set(reflect.Append(reflect.MakeSlice(f.Type(), 0, 1), w))
				requireField(t, check(v), name+"[0]")
			}
		}
		if v, f := copied(); f.Kind() == reflect.Slice {
			switch f.Type().Elem().Kind() {
			case reflect.Interface, reflect.Pointer, reflect.Func:
				f.Set(reflect.MakeSlice(f.Type(), 1, 1))
				requireField(t, check(v), name+"[0]")
			}
		}
	})
}

// eachField calls do for each exported field of the good literals. Name is the
// field as a ConfigError has it; copied returns a copy of the literal, and the
// field in it.
func eachField(t *testing.T, do func(t *testing.T, name string, copied func() (any, reflect.Value))) {
	for _, v := range goodLiterals() {
		typ := reflect.Indirect(reflect.ValueOf(v)).Type()
		if typ.Kind() != reflect.Struct {
			continue
		}
		for i := range typ.NumField() {
			field := typ.Field(i)
			if !field.IsExported() {
				continue
			}
			t.Run(typeName(v)+"."+field.Name, func(t *testing.T) {
				name, _, _ := strings.Cut(typ.Name(), "[")
				do(t, name+"."+field.Name, func() (any, reflect.Value) {
					c := reflect.New(typ)
					from := reflect.Indirect(reflect.ValueOf(v))
					for j := range typ.NumField() {
						if typ.Field(j).IsExported() {
							c.Elem().Field(j).Set(from.Field(j))
						}
					}
					return c.Interface(), c.Elem().Field(i)
				})
			})
		}
	}
}

func check(v any) error { return v.(interface{ Check() error }).Check() }

// requireField expects a ConfigError of a field, or of something below it.
func requireField(t *testing.T, err error, field string) {
	t.Helper()
	require.Error(t, err, "%s", field)
	var all []error
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		all = j.Unwrap()
	}
	var names []string
	for _, e := range all {
		var c *penstock.ConfigError
		require.True(t, errors.As(e, &c), "%v", e)
		names = append(names, c.Field)
		rest, ok := strings.CutPrefix(c.Field, field)
		if ok && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			require.NotEmpty(t, c.Reason)
			return
		}
	}
	t.Errorf("%s is not among the mistakes: %q", field, names)
}

// typeName returns the name of a type of ours, "l7.Limit" for a
// *l7.Limit[netip.Addr].
func typeName(v any) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(fmt.Sprintf("%T", v), "*"), "[")
	return name
}

// declaration is an exported type as the source has it.
type declaration struct {
	name      string
	hasFields bool // it is a struct with exported fields
	hasCheck  bool
	docs      map[string]string // comments by field
}

// declarations returns the exported types of the packages.
func declarations(t *testing.T) map[string]*declaration {
	all, fset := map[string]*declaration{}, token.NewFileSet()
	of := func(name string) *declaration {
		if all[name] == nil {
			all[name] = &declaration{docs: map[string]string{}}
		}
		return all[name]
	}
	for _, dir := range checkedDirs {
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		for _, e := range entries {
			if filepath.Ext(e.Name()) != ".go" || strings.HasSuffix(e.Name(), "_test.go") {
				continue
			}
			file, err := parser.ParseFile(fset, filepath.Join(dir, e.Name()), nil, parser.ParseComments)
			require.NoError(t, err)
			prefix := file.Name.Name + "."
			for _, decl := range file.Decls {
				switch decl := decl.(type) {
				case *ast.FuncDecl:
					if decl.Recv != nil && decl.Name.Name == "Check" {
						of(prefix + receiver(decl.Recv.List[0].Type)).hasCheck = true
					}
				case *ast.GenDecl:
					for _, s := range decl.Specs {
						if s, ok := s.(*ast.TypeSpec); ok && s.Name.IsExported() {
							of(prefix+s.Name.Name).declare(fset, prefix+s.Name.Name, s)
						}
					}
				}
			}
		}
	}
	for name, d := range all {
		if d.name == "" {
			delete(all, name) // not exported
		}
	}
	return all
}

func (d *declaration) declare(fset *token.FileSet, name string, s *ast.TypeSpec) {
	d.name = name
	st, ok := s.Type.(*ast.StructType)
	if !ok {
		return
	}
	group, next := "", 0 // a comment above a row of fields goes for all of them
	for _, f := range st.Fields.List {
		if line := fset.Position(f.Pos()).Line; f.Doc != nil || line != next {
			group = f.Doc.Text()
		}
		next = fset.Position(f.End()).Line + 1
		for _, n := range f.Names {
			if n.IsExported() {
				d.hasFields = true
				d.docs[n.Name] = group + f.Comment.Text()
			}
		}
	}
}

func receiver(x ast.Expr) string {
	for {
		switch y := x.(type) {
		case *ast.StarExpr:
			x = y.X
		case *ast.IndexExpr:
			x = y.X
		case *ast.IndexListExpr:
			x = y.X
		case *ast.Ident:
			return y.Name
		default:
			return ""
		}
	}
}
