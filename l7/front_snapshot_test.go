// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"crypto/tls"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
)

// newLent returns an exchange as a front hands it over when no handler has added to it.
func newLent() *Exchange {
	x := &Exchange{down: new(standard), proto: 1, trailers: true, last: new(Wrap)}
	x.from(&origin{"https", netip.MustParseAddrPort("192.0.2.7:1234"), netip.MustParseAddrPort("192.0.2.80:443"), new(tls.ConnectionState), new(l4.ProxyHeader), "t13d"})
	x.Record.Start = time.Unix(1e9, 0)
	x.Method, x.Host, x.Path, x.Query, x.ContentLength = "POST", "a.test", "/path", "?query", 7
	x.begin(FrontStandard)
	x.Record.Start = time.Unix(1e9, 0)
	return x
}

// settable makes a field writable that is not exported.
func settable(v reflect.Value) reflect.Value {
	return reflect.NewAt(v.Type(), unsafe.Pointer(v.UnsafeAddr())).Elem()
}

// change sets v to another value than it has.
func change(t *testing.T, v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "!")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int8, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Uint8, reflect.Uint64:
		v.SetUint(v.Uint() + 1)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	case reflect.Func:
		v.Set(reflect.MakeFunc(v.Type(), nil))
	case reflect.Struct:
		switch p := v.Addr().Interface().(type) {
		case *time.Time:
			*p = p.Add(time.Hour)
		case *netip.Addr:
			*p = netip.MustParseAddr("198.51.100.1")
		case *netip.AddrPort:
			*p = netip.MustParseAddrPort("198.51.100.1:1")
		default:
			for i := range v.NumField() {
				change(t, settable(v.Field(i)))
			}
		}
	case reflect.Interface:
		for _, c := range []any{errors.New("changed"), new(Capture), new(changedTrailer)} {
			if reflect.TypeOf(c).Implements(v.Type()) {
				v.Set(reflect.ValueOf(c))
				return
			}
		}
		t.Fatalf("no value for %s", v.Type())
	default:
		t.Fatalf("no value for %s", v.Type())
	}
}

type changedTrailer struct{}

func (*changedTrailer) editTrailer(*balance.Server, *Fields) *Fields { return nil }

// What a handler outside has set, whichever field it is, an exchange inside a foreign
// handler begins with. Only what belongs to the reply or is read from the request again
// is not carried.
func TestSnapshotHasEveryField(t *testing.T) {
	again := map[string]bool{
		"Method": true, "Host": true, "ContentLength": true, "Header": true, "sensitive": true, "grpc": true, // read from the request
		"down": true, "lent": true, "editors": true, "filters": true, "now": true,
	}
	check := func(name string, x *Exchange) {
		var n snapshot
		var got Exchange
		n.take(x, x.origin())
		n.begin(&got)
		want, have := reflect.ValueOf(x).Elem(), reflect.ValueOf(&got).Elem()
		for i := range want.NumField() {
			f := want.Type().Field(i).Name
			if again[f] || want.Field(i).Kind() == reflect.Func {
				continue
			}
			assert.Equal(t, settable(want.Field(i)).Interface(), settable(have.Field(i)).Interface(), "%s: %s", name, f)
		}
		assert.Equal(t, x.ErrorPage == nil, got.ErrorPage == nil, name)
		assert.Equal(t, x.Header.own, got.Header.own, name)
	}

	x := newLent()
	require.True(t, x.untold())
	check("nothing", x)

	for _, in := range []string{"", "Record", "Balance", "asked"} {
		of := func(x *Exchange) reflect.Value {
			v := reflect.ValueOf(x).Elem()
			if in != "" {
				v = v.FieldByName(in)
			}
			return v
		}
		for i := range of(x).NumField() {
			f := of(x).Type().Field(i).Name
			if in == "" && again[f] {
				continue
			}
			x := newLent()
			change(t, settable(of(x).Field(i)))
			check(in+"."+f, x)
		}
	}
	x = newLent()
	x.Header.ownField("X-Own")
	check("own fields", x)
}

// A path of plain bytes gets the URL that package url makes, and is written by it as it was.
func TestURLOfPlainPaths(t *testing.T) {
	check := func(target string) {
		if !all(target, isTargetByte) {
			return // refused before
		}
		want, err := url.ParseRequestURI(target)
		got := urlOf(target)
		if err != nil {
			assert.Nil(t, got, target)
			return
		}
		if assert.Equal(t, want, got, target) {
			assert.Equal(t, want.RequestURI(), got.RequestURI(), target)
		}
	}
	for b := range 256 {
		c := string([]byte{byte(b)})
		for _, s := range []string{"/" + c, "/a" + c + "b/c", "/a?" + c, "/" + c + "?" + c, c, "//" + c, "/%" + c + "1"} {
			check(s)
		}
	}
	for _, s := range []string{"", "*", "/", "//a/b", "/a/../b", "/a?", "/a??", "/a?b?c", "/a?b#c", "/a#b", "http://a.test/b?c", "/a;b=c,d:e@f$g&h+i", "/%2f", "/a!b", "a.test:443"} {
		check(s)
	}
}

// A request is seen to be changed, in whichever part of its target and of what is noted
// of its header.
func TestMarkedRequestIsSeenToChange(t *testing.T) {
	for _, target := range []string{"/a?b", "/a", "/a?", "/%2f?b", "//a?b", "http://a.test/a?b", "http://b.test/a"} {
		for _, header := range []http.Header{nil, {"Connection": {"close"}}} {
			u, err := url.ParseRequestURI(target)
			require.NoError(t, err)
			x := newLent()
			require.Nil(t, x.setTarget(target))
			x.Host = "a.test"
			x.begin(FrontStandard)
			x.Record.Start = time.Unix(1e9, 0)
			var l carried
			l.from.take(x, x.origin())
			l.mark(&http.Request{URL: u, RequestURI: target, Host: "a.test", Header: header}, nil)
			require.Equal(t, target[0] == '/' && target[1] != '%' && header == nil, l.was == nil, target)
			require.True(t, l.sameURL(u), target)
			for i := range reflect.TypeFor[url.URL]().NumField() {
				c := *u
				change(t, settable(reflect.ValueOf(&c).Elem().Field(i)))
				assert.False(t, l.sameURL(&c), "%s: %s", target, reflect.TypeFor[url.URL]().Field(i).Name)
			}
			assert.True(t, l.sameTarget(target))
			for _, other := range []string{target + "x", "x" + target, target[1:], ""} {
				assert.False(t, l.sameTarget(other), "%s: %s", target, other)
			}
			assert.True(t, l.sameHost("a.test") && !l.sameHost("b.test"))
			assert.True(t, l.sameConnection(header["Connection"]) && !l.sameConnection([]string{"x"}))
			assert.False(t, l.wasSent("X-Forwarded-For", "192.0.2.9"))
		}
	}
	var l carried
	x := newLent()
	l.from.take(x, x.origin())
	sent := Field{Name: "X-Forwarded-For", Value: "192.0.2.9", kind: kindForwarded}
	l.mark(&http.Request{URL: &url.URL{Path: "/path", RawQuery: "query"}, RequestURI: "/path?query", Host: "a.test"}, []Field{sent})
	assert.True(t, l.wasSent("X-Forwarded-For", "192.0.2.9") && !l.wasSent("X-Forwarded-For", "192.0.2.8"))
}

// An idle connection consists of a byteConn and what l4 has of it.
func TestByteConnIsSmall(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) < 8 {
		t.Skip("the sizes are those of 64 bits")
	}
	assert.LessOrEqual(t, unsafe.Sizeof(byteConn{}), uintptr(288), "a size class of package runtime")
	assert.LessOrEqual(t, unsafe.Sizeof(handedConn{}), uintptr(96), "a size class, too")
}

// A foreign handler costs the memory of its request, more than anything else.
func TestOwnExchangeIsSmall(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) < 8 {
		t.Skip("for 64 bits")
	}
	assert.LessOrEqual(t, unsafe.Sizeof(ownExchange{}), uintptr(1152-8), "a size class of package runtime, with the type")
}
