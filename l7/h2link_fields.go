// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"strings"

	"github.com/penstock-lb/penstock/l7/internal/h2"
)

// fields writes the fields that the engine does not own, and reports whether a
// Date was among them.
func (k *h2Link) fields(b h2.Block, list *Fields) (dated bool) {
	for i := range list.list {
		fd := &list.list[i]
		if fd.kind.owned() {
			continue
		}
		dated = dated || fd.kind == kindDate
		if fd.sensitive {
			_, name := k.name(fd.Name)
			b.Field(name, fd.Value, true)
		} else if !b.Again(fd.Name, fd.Value) {
			raw, name := k.name(fd.Name)
			b.FieldAs(raw, name, fd.Value)
		}
	}
	return dated
}

// number returns n as a string. It keeps the last one, since replies often have the
// same length.
func (k *h2Link) number(n int64) string {
	if n != k.length || k.digits == "" {
		k.length, k.digits = n, formatInt(n)
	}
	return k.digits
}

// An h2Name is a field's name as it is spelled somewhere, and in lower case.
type h2Name struct{ raw, lower string }

// name returns a field's name in lower case, and the name itself as a string that may
// be kept, or "". It caches names, which are few.
func (k *h2Link) name(s string) (raw, lower string) {
	if isLower(s) {
		return s, s
	}
	if n, ok := k.names[s]; ok {
		return n.raw, n.lower
	}
	n := h2Name{"", lowerString(s)}
	if len(k.names) < 64 && len(s) < 64 {
		n.raw = strings.Clone(s)
		k.names[n.raw] = n
	}
	return n.raw, n.lower
}

func isLower(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return true
}

func lowerString(s string) string {
	b := make([]byte, len(s))
	for i := range b {
		b[i] = lower(s[i])
	}
	return string(b)
}

// sensitive reports whether a field with that name and value came as one that must
// enter no table on its way (RFC 7541, section 7.1.3).
func (f *Fields) sensitive(name, value string) bool {
	for i := range f.list {
		if fd := &f.list[i]; fd.sensitive && fd.Value == value && fd.named(name) {
			return true
		}
	}
	return false
}

// anySensitive reports whether there are such fields.
func (f *Fields) anySensitive() bool {
	for i := range f.list {
		if f.list[i].sensitive {
			return true
		}
	}
	return false
}

// knownField returns the kind of a field, and whether the field has been found to be
// well-formed before: most come from the table again and again.
func knownField(hf *h2.HeaderField) (k kind, fine bool) {
	if hf.Note != nil && *hf.Note != 0 {
		return kind(*hf.Note - 1), true
	}
	return kindOf(hf.Name), false
}

// noteField notes that a field is well-formed.
func noteField(hf *h2.HeaderField, k kind) {
	if hf.Note != nil {
		*hf.Note = uint8(k) + 1
	}
}

// fieldFault returns what makes a field of HTTP/2 malformed, pseudo fields aside
// (RFC 9113, sections 8.2.1 and 8.2.2).
func fieldFault(hf *h2.HeaderField, k kind) string {
	if !isToken(hf.Name) || !isLower(hf.Name) {
		return "malformed field name"
	}
	switch k {
	case kindConnection, kindTransferEncoding, kindUpgrade:
		return "field " + hf.Name + ", which is for HTTP/1 only"
	case kindTE:
		if !equalFold(hf.Value, "trailers") {
			return "TE other than trailers"
		}
	case kindHop:
		if hf.Name == "keep-alive" || hf.Name == "proxy-connection" {
			return "field " + hf.Name + ", which is for HTTP/1 only"
		}
	}
	return ""
}

// valueFault is fieldFault for the value, which neither begins nor ends with white
// space (RFC 9113, section 8.2.1).
func valueFault(hf *h2.HeaderField) string {
	if !validValue(hf.Value) || len(trimOWS(hf.Value)) != len(hf.Value) {
		return "malformed value of field " + hf.Name
	}
	return ""
}
