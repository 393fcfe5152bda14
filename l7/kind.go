// SPDX-License-Identifier: Apache-2.0

package l7

// A kind marks the fields that the engine itself has to know. It is determined
// once, when a field is parsed or added, so that later code compares a byte and
// not a name.
type kind uint8

const (
	kindOther kind = iota

	// Owned by the engine: never in an Exchange's or a Reply's list.
	kindHost
	kindContentLength
	kindTransferEncoding
	kindConnection
	kindUpgrade
	kindTE
	kindHop // Keep-Alive, Proxy-Connection, Proxy-Authenticate, Proxy-Authorization, HTTP2-Settings, underscore aliases of framing fields

	kindOwned // the kinds above this one stay in the lists

	kindExpect
	kindForwarded // Forwarded, X-Forwarded-*, X-Real-IP and their underscore aliases
	kindTrailer
	kindMaxForwards
	kindDate
	kindServer
	kindAuthorization
)

// owned reports whether the engine writes the field itself.
func (k kind) owned() bool { return k > kindOther && k < kindOwned }

// kindOf returns the kind of a field name.
func kindOf[S ~string | ~[]byte](name S) kind {
	if len(name) < 2 || len(name) > 22 && lower(name[0]) != 'x' {
		return kindOther
	}
	switch lower(name[0]) {
	case 'a':
		if equalFold(name, "authorization") {
			return kindAuthorization
		}
	case 'c':
		if equalFold(name, "connection") {
			return kindConnection
		}
		if equalFold(name, "content-length") {
			return kindContentLength
		}
		if equalDashed(name, "content-length") {
			return kindHop
		}
	case 'h':
		if equalFold(name, "host") {
			return kindHost
		}
		if equalFold(name, "http2-settings") {
			return kindHop
		}
	case 't':
		if equalFold(name, "te") {
			return kindTE
		}
		if equalFold(name, "transfer-encoding") {
			return kindTransferEncoding
		}
		if equalDashed(name, "transfer-encoding") {
			return kindHop
		}
		if equalFold(name, "trailer") {
			return kindTrailer
		}
	case 'u':
		if equalFold(name, "upgrade") {
			return kindUpgrade
		}
	case 'k':
		if equalFold(name, "keep-alive") {
			return kindHop
		}
	case 'p':
		if equalFold(name, "proxy-connection") || equalFold(name, "proxy-authorization") || equalFold(name, "proxy-authenticate") {
			return kindHop
		}
	case 'e':
		if equalFold(name, "expect") {
			return kindExpect
		}
	case 'm':
		if equalFold(name, "max-forwards") {
			return kindMaxForwards
		}
	case 'd':
		if equalFold(name, "date") {
			return kindDate
		}
	case 's':
		if equalFold(name, "server") {
			return kindServer
		}
	case 'f':
		if equalFold(name, "forwarded") {
			return kindForwarded
		}
	case 'x':
		if isForwardedName(name) {
			return kindForwarded
		}
	}
	return kindOther
}

// isForwardedName reports whether name is a forwarding field. A server that
// maps names to CGI variables treats "_" like "-", so both spellings are the
// same field (CVE-2026-39858).
func isForwardedName[S ~string | ~[]byte](name S) bool {
	const prefix = "x-forwarded-"
	if len(name) == len("x-real-ip") {
		return equalDashed(name, "x-real-ip")
	}
	return len(name) > len(prefix) && equalDashed(name[:len(prefix)], prefix)
}

// alike reports whether two names are the same but for case and for "_" in
// place of "-".
func alike(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i++ {
		c, d := lower(a[i]), lower(b[i])
		if c != d && !(c == '_' && d == '-' || c == '-' && d == '_') {
			return false
		}
	}
	return true
}

// equalDashed is equalFold with "_" taken for "-".
func equalDashed[S ~string | ~[]byte](a S, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i++ {
		if c := a[i]; lower(c) != b[i] && (c != '_' || b[i] != '-') {
			return false
		}
	}
	return true
}
