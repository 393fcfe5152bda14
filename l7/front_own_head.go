// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// ownFraming decides by the fields of a foreign handler, as net/http does, how long the
// body of an HTTP/1 reply is. r.ContentLength is what the handler has announced, or has
// written in all; -1 if it is not known.
func (w *ownWriter) ownFraming(r *Reply) {
	switch te := w.frozen.Get("Transfer-Encoding"); {
	case te == "identity":
		r.toClose = r.ContentLength < 0
	case te != "":
		r.ContentLength = -1
	}
}

// appendOwnHead appends the head of a reply that a foreign handler has made, with its
// fields in the order of net/http: those of the handler, sorted by name, then the ones
// that are added.
func (c *byteConn) appendOwnHead(b []byte, r *Reply) []byte {
	at := len(b)
	if b = appendStatus(b, r.Status); c.x.proto == 0 {
		b[at+len("HTTP/1.")] = '0'
	}
	var few [16]string    // on the stack
	var length, told bool // set by the handler
	for _, name := range sortedNames(few[:0], r.own) {
		values := r.own[name]
		switch name {
		case "Content-Length":
			if len(values) > 0 && r.ContentLength >= 0 && bodyAllowed(r.Status) {
				b, length = appendLength(b, r.ContentLength), true
			}
			continue
		case "Transfer-Encoding":
			if !c.rep.chunked || len(values) > 0 && values[0] == "chunked" {
				continue
			}
		case "Content-Type":
			if r.Status == http.StatusNotModified {
				continue
			}
		case "Connection":
			if c.ends.closes() && !saysClose(r.own) && r.Status != http.StatusSwitchingProtocols {
				continue
			}
			told = true
		default:
			if strings.HasPrefix(name, http.TrailerPrefix) || !isToken(name) || kindOf(name) == kindContentLength || kindOf(name) == kindTransferEncoding {
				continue
			}
		}
		for _, v := range values {
			b = append(b, name...)
			b = append(b, ": "...)
			b = append(b, cleanValue(v)...)
			b = append(b, "\r\n"...)
		}
	}
	if _, ok := r.own["Date"]; !ok {
		b = appendDate(b)
	}
	if !length && r.ContentLength >= 0 && bodyAllowed(r.Status) {
		b = appendLength(b, r.ContentLength)
	}
	if r.guessed != "" {
		b = append(b, "Content-Type: "...)
		b = append(b, r.guessed...)
		b = append(b, "\r\n"...)
	}
	if !told && (c.x.proto > 0 || !c.ends.closes()) {
		b = c.appendConnection(b)
	}
	if c.rep.chunked {
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	return append(b, "\r\n"...)
}

func appendDate(b []byte) []byte {
	b = append(b, "Date: "...)
	return append(time.Now().UTC().AppendFormat(b, http.TimeFormat), "\r\n"...)
}

func appendLength(b []byte, n int64) []byte {
	b = append(b, "Content-Length: "...)
	return append(strconv.AppendInt(b, n, 10), "\r\n"...)
}

// appendConnection appends what tells the client whether the connection ends.
func (c *byteConn) appendConnection(b []byte) []byte {
	switch {
	case c.ends.closes():
		return append(b, "Connection: close\r\n"...)
	case c.x.proto == 0:
		return append(b, "Connection: keep-alive\r\n"...)
	}
	return b
}
