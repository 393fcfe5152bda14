// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
)

// net/http takes a value of HTTP/2 with the white space around it, where a server of
// HTTP/1 does not see that space (RFC 9110, section 5.5): what a rule looks at must be
// what the server gets.
func TestStandardSpaceAroundValues(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, "/", http.NoBody)
	r.ProtoMajor, r.ProtoMinor = 2, 0
	r.Header.Set("Authorization", " NTLM eve\t")
	r.Header.Set("Accept", "\ttext/event-stream ")
	r.Trailer = http.Header{"X-Sum": {" 1 "}}
	var values, trailer []string
	h := HandlerFunc(func(x *Exchange) {
		for _, v := range x.Header.All() {
			values = append(values, v)
		}
		for _, v := range x.down.trailer().All() {
			trailer = append(trailer, v)
		}
		if !Matches(Header{Name: "Authorization", Value: "NTLM eve"}, x) {
			t.Error("the matcher does not see the login")
		}
		x.Respond(http.StatusOK, nil, "")
	})
	h.ServeHTTP(httptest.NewRecorder(), r)
	slices.Sort(values)
	if want := []string{"NTLM eve", "X-Sum", "text/event-stream"}; !slices.Equal(values, want) {
		t.Errorf("values %q, want %q", values, want)
	}
	if !slices.Equal(trailer, []string{"1"}) {
		t.Errorf("trailer %q", trailer)
	}
}
