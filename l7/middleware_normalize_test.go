// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// M3 and M11: each form of normalisation.
func TestM3_Normalize(t *testing.T) {
	tests := []struct {
		h        Normalize
		in, want string
	}{
		{Normalize{DecodeUnreserved: true}, "/%41%2f%7E?%61=%26", "/A%2f~?a=%26"},
		{Normalize{DecodeUnreserved: true}, "/%zz%4", "/%zz%4"},
		{Normalize{DecodeUnreserved: true, Strict: true}, "/%zz", "400"},
		{Normalize{DecodeUnreserved: true}, "/%7%41%%411%%7a", "/%7%41%%411%z"},
		{Normalize{UpperHex: true}, "/%2f%c3?%aF", "/%2F%C3?%AF"},
		{Normalize{UpperHex: true, Strict: true}, "/?a=%g0", "400"},
		{Normalize{MergeSlashes: true}, "//a///b/?//", "/a/b/?//"},
		{Normalize{DotSegments: true}, "/a/./b/../c", "/a/c"},
		{Normalize{DotSegments: true}, "/a/b/..", "/a/"},
		{Normalize{DotSegments: true}, "/a/.", "/a/"},
		{Normalize{DotSegments: true}, "/../../a", "/a"},
		{Normalize{DotSegments: true}, "/..", "/"},
		{Normalize{DotSegments: true}, "/a/%2e%2E/b", "/b"},
		{Normalize{DotSegments: true}, "/a/.../..b/c..", "/a/.../..b/c.."},
		{Normalize{DotSegments: true}, "/a//../b", "/a/b"},
		{Normalize{DotSegments: true, Strict: true}, "/a/../../b", "400"},
		{Normalize{DotSegments: true, Strict: true}, "/a/../b", "/b"},
		{Normalize{SortQuery: true}, "/?b=1&a=2&b=0&a", "/?a=2&a&b=1&b=0"},
		{Normalize{}, "/%41//../?b&a", "/%41//../?b&a"},
	}
	for _, tt := range tests {
		x := get("h", tt.in)
		got := "400"
		if tt.h.normalize(x) {
			got = x.Path + x.Query
		}
		require.Equal(t, tt.want, got, "%+v of %s", tt.h, tt.in)
	}
	onBoth(t, func(*site) http.Handler {
		return &Normalize{MergeSlashes: true, DotSegments: true, Strict: true, Next: text}
	}, func(s *site) {
		t := s.T
		require.Equal(t, "GET 10.0.0.1/b", s.get("//a/../b").body)
		require.Equal(t, 400, s.get("/../b").StatusCode)
	})
}

func TestM11_DefaultPort(t *testing.T) {
	for _, tt := range []struct{ scheme, host, want string }{
		{"http", "a:80", "a"}, {"http", "a:443", "a:443"}, {"https", "a:443", "a"}, {"https", "[::1]:443", "[::1]"}, {"http", "a:8080", "a:8080"},
	} {
		x := &Exchange{Scheme: tt.scheme, Host: tt.host, Path: "/"}
		require.True(t, (&Normalize{DefaultPort: true}).normalize(x))
		require.Equal(t, tt.want, x.Host)
	}
}

// Normalising twice is normalising once, and never makes a target that cannot
// be sent.
func FuzzNormalize(f *testing.F) {
	f.Add("/a/%2e%2e/%41//b", "?b&a")
	f.Fuzz(func(t *testing.T, path, query string) {
		x := &Exchange{Method: "GET", Scheme: "http", Path: "/" + path, Query: "?" + query}
		if !targetOK(x) {
			return
		}
		h := &Normalize{DecodeUnreserved: true, UpperHex: true, MergeSlashes: true, DotSegments: true, SortQuery: true}
		require.True(t, h.normalize(x))
		require.True(t, targetOK(x), "%q %q", x.Path, x.Query)
		require.False(t, hasDots(x.Path), x.Path)
		once := x.Path + x.Query
		require.True(t, h.normalize(x))
		require.Equal(t, once, x.Path+x.Query)
	})
}
