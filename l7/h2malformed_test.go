// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bytes"
	"context"
	"io"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/penstock-lb/penstock/l7"
)

// P7: a stream with a malformed :path comes to nothing, and the connection
// goes on. (Such streams are not counted by source: net/http, whose HTTP/2
// serves, tells nobody of whom they came.)
func TestP7_MalformedPath(t *testing.T) {
	for _, path := range []string{"x", "/x\nY: z", ""} {
		synctest.Test(t, func(t *testing.T) {
			byteFront(t, proxyTo("10.0.0.1:80"), new(l7.Server), func(t *testing.T, f *front) {
				o := origin(t, f.network, "10.0.0.1:80")
				c, err := f.network.DialContext(context.Background(), "tcp", siteAddr)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				io.WriteString(c, http2.ClientPreface)
				fr := http2.NewFramer(c, c)
				fr.AllowIllegalWrites = true
				fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
				fr.WriteSettings()
				var buf bytes.Buffer
				enc := hpack.NewEncoder(&buf)
				ask := func(stream uint32, path string) {
					buf.Reset()
					for _, h := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "a.test"}, {":path", path}} {
						enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
					}
					fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: buf.Bytes(), EndHeaders: true, EndStream: true})
				}
				end := func(stream uint32) string {
					for {
						frame, err := fr.ReadFrame()
						if err != nil {
							return err.Error()
						}
						switch frame := frame.(type) {
						case *http2.MetaHeadersFrame:
							if frame.StreamID == stream {
								return frame.PseudoValue("status")
							}
						case *http2.RSTStreamFrame:
							if frame.StreamID == stream {
								return "reset"
							}
						}
					}
				}
				ask(1, path)
				if got := end(1); got != "400" && got != "reset" {
					t.Errorf("path %q: %s; want 400 or a reset", path, got)
				}
				ask(3, "/good")
				if got := end(3); got != "200" {
					t.Errorf("after path %q: %s; want 200", path, got)
				}
				if rs := o.Requests(); len(rs) != 1 || rs[0].Target != "/good" {
					t.Errorf("the server got %+v", rs)
				}
			})
		})
	}
}
