// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"bytes"
	"net/http"
	"strings"
)

// A headError is a message that is refused. Nothing after it on the connection
// is read.
type headError struct {
	status int    // for the client; a server's message makes it 502
	reason string // for the record
}

func (e *headError) Error() string { return "l7: " + e.reason }

func bad(reason string) *headError { return &headError{http.StatusBadRequest, reason} }

// headEnd returns the length of the head at the beginning of b, with its empty
// line, or 0 if it is not complete. Bytes before from have been scanned by an
// earlier call. Every line has to end in CRLF: RFC 9112, section 2.2 allows a
// recipient to accept a bare LF, and parsers disagree about it.
func headEnd(b []byte, from int) (int, *headError) {
	for i := from; ; i++ {
		n := bytes.IndexByte(b[i:], '\n')
		if n < 0 {
			return 0, nil
		}
		if i += n; i == 0 || b[i-1] != '\r' {
			return 0, bad("line ends in a bare LF")
		}
		if i >= 3 && b[i-2] == '\n' && b[i-3] == '\r' {
			return i + 1, nil
		}
	}
}

// sameOr returns last if it equals b, else a copy of b. A polling client usually
// sends the same head each time, so this saves the copy.
func sameOr(last string, b []byte) string {
	if last == string(b) {
		return last
	}
	return string(b)
}

// framing is what the fields of a message say about its body and its
// connection.
type framing struct {
	length    int64 // -1 without Content-Length
	chunked   bool
	coded     bool  // Transfer-Encoding is there
	codings   lines // its values
	close     bool  // Connection: close
	keepAlive bool  // Connection: keep-alive
	upgrade   bool  // Connection: upgrade
	nominated bool  // Connection names other fields
	hosts     int
	host      string
	protocol  lines // Upgrade
	trailers  bool  // TE: trailers
	expect    bool
	unmet     string // the first expectation other than 100-continue
	options   lines  // the Connection lines that name other fields
}

// parseRequest fills x with the request whose head is s, which ends in an
// empty line. The strings of x are parts of s.
func parseRequest(x *Exchange, f *framing, s string, maxFields int) *headError {
	line, rest, ok := cutLine(s)
	if !ok {
		return bad("no request line")
	}
	minor, err := parseRequestLine(x, line)
	if err != nil {
		return err
	}
	x.proto = minor
	*f = framing{length: -1}
	if err := parseFields(&x.Header, f, rest, maxFields); err != nil {
		return err
	}
	return f.request(x)
}

// parseRequestLine splits "METHOD SP target SP HTTP/1.x" (RFC 9112, section 3).
func parseRequestLine(x *Exchange, line string) (minor int8, _ *headError) {
	i := strings.IndexByte(line, ' ')
	if i <= 0 || !isToken(line[:i]) {
		return 0, bad("malformed method")
	}
	x.Method = line[:i]
	line = line[i+1:]
	i = strings.IndexByte(line, ' ')
	if i <= 0 {
		return 0, bad("malformed request line")
	}
	target, version := line[:i], line[i+1:]
	switch version {
	case "HTTP/1.1":
		minor = 1
	case "HTTP/1.0":
	default:
		if len(version) == 8 && version[:5] == "HTTP/" && class[version[5]]&isDigitByte != 0 &&
			version[6] == '.' && class[version[7]]&isDigitByte != 0 {
			if version[5] == '1' {
				minor = 1 // a higher minor version is treated as ours (RFC 9110, section 2.5)
				break
			}
			return 0, &headError{http.StatusHTTPVersionNotSupported, "version " + version}
		}
		return 0, bad("malformed version")
	}
	return minor, x.setTarget(target)
}

// setTarget splits a request target (RFC 9112, section 3.2) into Path, Query
// and, from the absolute and authority forms, Host.
func (x *Exchange) setTarget(target string) *headError {
	if !all(target, isTargetByte) {
		return bad("malformed target")
	}
	x.Host = ""
	switch {
	case x.Method == http.MethodConnect:
		if !validHost(target) || hostPort(target) == "" {
			return bad("CONNECT without host:port")
		}
		x.Host, x.Path, x.Query = target, "", ""
		return nil
	case target[0] == '/':
	case target == "*":
		if x.Method != http.MethodOptions {
			return bad("target * is for OPTIONS only")
		}
	default:
		i := strings.Index(target, "://")
		if i < 0 || !equalFold(target[:i], "http") && !equalFold(target[:i], "https") {
			return bad("malformed target")
		}
		target = target[i+3:]
		i = strings.IndexAny(target, "/?")
		if i < 0 {
			i = len(target)
		}
		if x.Host = target[:i]; !validHost(x.Host) {
			return bad("malformed authority")
		}
		if target = target[i:]; target == "" {
			target = "/"
			if x.Method == http.MethodOptions {
				target = "*" // RFC 9112, section 3.2.4
			}
		}
	}
	x.Path, x.Query = target, ""
	if i := strings.IndexByte(target, '?'); i >= 0 {
		if x.Path, x.Query = target[:i], target[i:]; i == 0 {
			x.Path = "/"
		}
	}
	return nil
}

// cutLine returns s up to the first CRLF, and the rest. A CR elsewhere stays in
// the line, where the checks find it.
func cutLine(s string) (line, rest string, ok bool) {
	i := strings.IndexByte(s, '\n')
	if i < 1 || s[i-1] != '\r' {
		return "", "", false
	}
	return s[:i-1], s[i+1:], true
}

// parseFields reads field lines up to the empty line (RFC 9112, section 5).
// End-to-end fields go to list, and what concerns the connection goes to f.
func parseFields(list *Fields, f *framing, s string, maxFields int) *headError {
	list.reset()
	for n := 0; !strings.HasPrefix(s, "\r\n"); n++ {
		if maxFields > 0 && n == maxFields {
			return &headError{http.StatusRequestHeaderFieldsTooLarge, "too many fields"}
		}
		colon := 0
		for colon < len(s) && class[s[colon]]&isTokenByte != 0 {
			colon++
		}
		if colon == 0 || colon == len(s) || s[colon] != ':' {
			return bad("malformed field name") // also white space before the colon, and a folded line
		}
		begin := colon + 1
		for begin < len(s) && (s[begin] == ' ' || s[begin] == '\t') {
			begin++
		}
		end := valueEnd(s, begin)
		if !strings.HasPrefix(s[end:], "\r\n") {
			return bad("control character in field " + s[:colon])
		}
		fd := Field{Name: s[:colon], Value: trimOWS(s[begin:end]), kind: kindOf(s[:colon]), checked: true}
		s = s[end+2:]
		if fd.kind == kindOther {
			list.list = append(list.list, fd)
		} else if err := f.field(list, fd); err != nil {
			return err
		}
	}
	if f.nominated {
		list.dropNominated(&f.options)
	}
	if f.coded {
		return f.transferCoding()
	}
	return nil
}

// transferCoding checks Transfer-Encoding (RFC 9112, section 6.1). Only a
// single chunked is supported: a message whose last coding is another has no
// known length (section 6.3), and other codings before chunked are not
// implemented.
func (f *framing) transferCoding() *headError {
	if len(f.codings.more) == 0 && equalFold(f.codings.first, "chunked") {
		f.chunked = true
		return nil
	}
	n, chunked, last := 0, 0, ""
	f.codings.eachItem(func(item string) {
		n++
		if last = item; equalFold(item, "chunked") {
			chunked++
		}
	})
	if chunked != 1 || n == 1 || !equalFold(last, "chunked") {
		return bad("Transfer-Encoding does not end in chunked, or is malformed")
	}
	return &headError{http.StatusNotImplemented, "Transfer-Encoding has more than chunked"}
}

// field handles a field that the engine has to know.
func (f *framing) field(list *Fields, fd Field) *headError {
	switch fd.kind {
	case kindHost:
		f.hosts++
		f.host = fd.Value
	case kindContentLength:
		n, ok := parseLength(fd.Value)
		if !ok || f.length >= 0 && f.length != n {
			return bad("malformed Content-Length")
		}
		f.length = n
	case kindTransferEncoding:
		f.coded = true
		f.codings.add(fd.Value)
	case kindConnection:
		f.connection(fd.Value)
	case kindUpgrade:
		f.protocol.add(fd.Value)
	case kindTE:
		f.trailers = f.trailers || hasItem(fd.Value, "trailers")
	case kindExpect:
		eachItem(fd.Value, func(item string) { // RFC 9110, section 10.1.1
			if equalFold(item, "100-continue") {
				f.expect = true
			} else {
				f.unmet = item
			}
		})
	case kindHop:
	default:
		list.list = append(list.list, fd)
	}
	return nil
}

// connection parses the options of a Connection line (RFC 9110, section 7.6.1).
func (f *framing) connection(value string) {
	if equalFold(value, "keep-alive") { // the usual value
		f.keepAlive = true
		return
	}
	nominates := false
	eachItem(value, func(item string) {
		switch {
		case equalFold(item, "close"):
			f.close = true
		case equalFold(item, "keep-alive"):
			f.keepAlive = true
		case equalFold(item, "upgrade"):
			f.upgrade = true
		case kindOf(item).owned():
		default:
			nominates = true
		}
	})
	if nominates {
		f.nominated = true
		f.options.add(value)
	}
}

// request checks the framing of a request and stores it in x.
func (f *framing) request(x *Exchange) *headError {
	if f.chunked {
		if x.proto == 0 {
			return bad("Transfer-Encoding in HTTP/1.0") // RFC 9112, section 6.1
		}
		if f.length >= 0 {
			return bad("both Transfer-Encoding and Content-Length")
		}
		x.ContentLength = -1
	} else {
		x.ContentLength = max(f.length, 0)
	}
	switch {
	case f.hosts > 1:
		return bad("more than one Host")
	case f.hosts == 0:
		if x.proto > 0 {
			return bad("no Host")
		}
	case !validHost(f.host):
		return bad("malformed Host")
	case x.Host == "":
		x.Host = f.host
	case x.Method == http.MethodConnect && !sameHost(x.Method, f.host, x.Host, ""):
		return bad("CONNECT to another authority than Host")
	}
	if x.proto > 0 && f.upgrade && x.ContentLength == 0 {
		x.upgrade = f.protocol.join() // ignored in HTTP/1.0 (RFC 9110, section 7.8)
	}
	if f.unmet != "" {
		return &headError{http.StatusExpectationFailed, "unknown expectation"}
	}
	x.trailers = f.trailers
	x.expect = f.expect && x.proto > 0 && x.ContentLength != 0
	return nil
}

// parseLength reads a Content-Length: digits only, below 2^62.
func parseLength(s string) (int64, bool) {
	if s == "" || len(s) > 32 {
		return 0, false
	}
	var n int64
	for i := 0; i < len(s); i++ {
		d := s[i] - '0'
		if d > 9 || n > (1<<62)/10-1 {
			return 0, false
		}
		n = n*10 + int64(d)
	}
	return n, true
}

// parseReply fills r with the reply whose head is s. The strings of r are
// parts of s.
func parseReply(r *Reply, f *framing, s string, maxFields int) (minor int8, _ *headError) {
	line, rest, ok := cutLine(s)
	if !ok || len(line) < 12 || line[:7] != "HTTP/1." || class[line[7]]&isDigitByte == 0 || line[8] != ' ' {
		return 0, bad("malformed status line")
	}
	if line[7] != '0' {
		minor = 1
	}
	status := 0
	for _, c := range []byte(line[9:12]) {
		if class[c]&isDigitByte == 0 {
			return 0, bad("malformed status")
		}
		status = status*10 + int(c-'0')
	}
	if status < 100 || len(line) > 12 && line[12] != ' ' || !validValue(line[12:]) {
		return 0, bad("malformed status line")
	}
	r.Status = status
	*f = framing{length: -1}
	if err := parseFields(&r.Header, f, rest, maxFields); err != nil {
		return 0, err
	}
	if f.chunked && (minor == 0 || f.length >= 0) {
		return 0, bad("Transfer-Encoding with Content-Length or HTTP/1.0")
	}
	return minor, nil
}

// bodyExpected reports whether a request of that method without a body is sent
// with Content-Length: 0 (RFC 9110, section 8.6).
func bodyExpected(method string) bool {
	return method == "POST" || method == "PUT" || method == "PATCH"
}
