// SPDX-License-Identifier: Apache-2.0

package l7

// scanState is the state of a [headScan].
type scanState uint8

const (
	scanMethod  scanState = iota // in the method
	scanTarget                   // in the target
	scanVersion                  // in the version, after n bytes of it
	scanLF                       // LF of a line
	scanBegin                    // at the beginning of a field line, or of the empty one
	scanName                     // in a field name
	scanValue                    // in a field value
)

// A headScan checks a request head that comes in pieces for errors that no
// further byte can correct, so that a client that sends something else gets its
// 400 at once and not after the timeout. It looks at each byte once. A head
// that passes may still be refused once it is complete.
type headScan struct {
	state scanState
	n     int // bytes of the target or version
	at    int // bytes of the head scanned so far
}

// hopeless returns an error if no request can begin with head. Each call gets
// the whole head so far.
func (h *headScan) hopeless(head []byte) *headError {
	for ; h.at < len(head); h.at++ {
		if h.state == scanValue { // most bytes of a long head are in values
			if h.at = valueEnd(unsafeString(head), h.at); h.at == len(head) {
				return nil
			}
		}
		if err := h.step(head[h.at]); err != nil {
			return err
		}
	}
	return nil
}

func (h *headScan) step(c byte) *headError {
	switch h.state {
	case scanMethod:
		switch {
		case c == ' ' && h.at > 0:
			h.state = scanTarget
		case class[c]&isTokenByte == 0:
			return bad("malformed method")
		}
	case scanTarget:
		switch {
		case c == ' ' && h.n > 0:
			h.state, h.n = scanVersion, 0
		case class[c]&isTargetByte == 0:
			return bad("malformed request line") // HTTP/0.9 has no version
		default:
			h.n++
		}
	case scanVersion:
		return h.version(c)
	case scanLF:
		if c != '\n' {
			return bad("CR within a line")
		}
		h.state = scanBegin
	case scanBegin:
		switch {
		case c == '\r':
			h.state = scanLF
		case class[c]&isTokenByte == 0:
			return bad("malformed field name")
		default:
			h.state = scanName
		}
	case scanName:
		switch {
		case c == ':':
			h.state = scanValue
		case class[c]&isTokenByte == 0:
			return bad("malformed field name")
		}
	case scanValue:
		switch {
		case c == '\r':
			h.state = scanLF
		case c < 0x20 && c != '\t' || c == 0x7f:
			return bad("control character in a field")
		}
	}
	return nil
}

// version takes one byte of "HTTP/1.1" and of the CR after it.
func (h *headScan) version(c byte) *headError {
	const form = "HTTP/d.d\r"
	if want := form[h.n]; want == 'd' && class[c]&isDigitByte == 0 || want != 'd' && c != want {
		return bad("malformed version")
	}
	if h.n++; h.n == len(form) {
		h.state = scanLF
	}
	return nil
}
