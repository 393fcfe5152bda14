// SPDX-License-Identifier: Apache-2.0

package compress

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7"
)

// Replies compresses the replies of Next for clients that accept it (RFC 9110, section
// 12.5.3), with the coding that they prefer; among equals, zstd before br before gzip.
// The zero value, with a Next, is usable. Its fields must not change once it serves, and
// it may be used by many goroutines at once.
//
// The package comment says which replies are compressed, and how their heads change.
type Replies struct {
	// Levels of compression, the higher the smaller and slower.
	Zstd   int // 1 to 9; 0 means 3, negative means none: zstd is not used
	Brotli int // 1 to 6; 0 means 4, negative means none
	Gzip   int // 1 to 9; 0 means 6, negative means none

	// Types are the media types that are compressed: "text/html", "text/*", or "*+json" for
	// all that end so. Nil means those that are text of some kind, among them text/*, JSON,
	// XML, JavaScript, SVG, WebAssembly, and fonts that are not compressed themselves.
	// A list replaces these and is not added to them.
	Types []string

	MinBytes int // a reply known to be shorter goes out as it is; 0 means 1 KiB, negative means none
	Max      int // replies compressed at once, those beyond go out as they are; 0 means 1000, negative means no limit

	Next http.Handler

	once  sync.Once
	wrong error // what Check says
	types *typeSet
	pools [codings]sync.Pool // of *compressor
	open  atomic.Int64
}

// ServeExchange implements [l7.Handler].
func (h *Replies) ServeExchange(x *l7.Exchange) {
	h.once.Do(h.init)
	if h.wrong != nil {
		misconfigured(x, h.wrong)
		return
	}
	r := &reply{h: h}
	r.ask(&x.Header)
	x.OnReply(r)
	defer r.end()
	l7.Serve(h.Next, x)
}

// ServeHTTP implements [http.Handler].
func (h *Replies) ServeHTTP(w http.ResponseWriter, r *http.Request) { l7.ServeHTTP(h, w, r) }

func (h *Replies) init() {
	h.wrong = h.Check()
	types := h.Types
	if types == nil {
		types = defaultTypes()
	}
	h.types = newTypeSet(types)
}

// Check returns what is wrong with h and its handler, each mistake a
// [*penstock.ConfigError].
func (h *Replies) Check() error {
	var m penstock.Mistakes
	m.If(h.Zstd > 9, "Replies.Zstd", h.Zstd, "must be 1 to 9: higher levels of zstd take tens of megabytes for each reply")
	m.If(h.Brotli > 6, "Replies.Brotli", h.Brotli, "must be 1 to 6: higher levels of brotli take tens of megabytes for each reply")
	m.If(h.Gzip > 9, "Replies.Gzip", h.Gzip, "must be a level of gzip, 1 to 9")
	m.If(h.Zstd < 0 && h.Brotli < 0 && h.Gzip < 0, "Replies.Gzip", h.Gzip, "must not be negative if all others are, or nothing is compressed")
	m.If(h.Types != nil && len(h.Types) == 0, "Replies.Types", h.Types, "must be nil, or name a type")
	for i, t := range h.Types {
		m.If(!validType(t), fmt.Sprintf("Replies.Types[%d]", i), t, "must be a media type without parameters, such as text/html, text/* or *+json")
	}
	m.Need("Replies.Next", h.Next, "must be the handler that goes on")
	m.In("Replies.Next", h.Next)
	return m.Err()
}

// level returns the level for a coding; negative means that it is not used.
func (h *Replies) level(c coding) int {
	switch c {
	case zstdCoding:
		return orDefault(h.Zstd, 3)
	case brotliCoding:
		return orDefault(h.Brotli, 4)
	}
	return orDefault(h.Gzip, 6)
}

// enter takes a place for a reply, if there is one.
func (h *Replies) enter() bool {
	if most := orDefault(h.Max, 1000); h.open.Add(1) > int64(most) && most >= 0 {
		h.open.Add(-1)
		return false
	}
	return true
}

// compressor returns one for a new stream.
func (h *Replies) compressor(c coding) *compressor {
	e, _ := h.pools[c].Get().(*compressor)
	if e == nil {
		e = &compressor{enc: newEncoder(c, h.level(c))}
	}
	e.enc.Reset(&e.out)
	return e
}

// A reply is what is known of one request until its reply has been sent.
type reply struct {
	h      *Replies
	accept string // Accept-Encoding, as the client sent it
	plain  bool   // the client wants no transformation
	tags   string // If-None-Match, as the client sent it
	coding coding // of the reply
	inside bool   // it has a place
	over   bool   // the handler has returned: what is sent now is not ours to compress
	stream stream
}

// ask reads what the client accepts.
func (r *reply) ask(f *l7.Fields) {
	for name, v := range f.All() {
		switch len(name) {
		case len("Accept-Encoding"):
			switch {
			case name != "Accept-Encoding" && !strings.EqualFold(name, "Accept-Encoding"):
			case r.accept == "":
				r.accept = v
			default:
				r.accept += "," + v
			}
		case len("Cache-Control"): // and If-None-Match
			r.plain = r.plain || strings.EqualFold(name, "Cache-Control") && hasMember(v, "no-transform")
			switch {
			case !strings.EqualFold(name, "If-None-Match"):
			case r.tags == "":
				r.tags = v
			default:
				r.tags += "," + v
			}
		}
	}
	if strings.Contains(r.tags, `W/"`) {
		addStrong(f)
	}
}

// EditReply implements [l7.ReplyEditor].
func (r *reply) EditReply(x *l7.Exchange, to *l7.Reply) {
	switch {
	case r.over || x.Upgrade() != "" || x.Record.Method == http.MethodConnect:
		return // it may be the head of a tunnel
	case to.Status == http.StatusNotModified:
		r.notModified(&to.Header)
		return
	case !r.h.suits(to):
		return
	}
	vary(&to.Header)
	accepts := parseAccept(r.accept)
	short := to.ContentLength >= 0 && to.ContentLength < int64(orDefault(r.h.MinBytes, 1<<10))
	if r.plain || r.inside || to.ContentLength == 0 || short && accepts.weighs(identity) != 0 {
		return
	}
	r.coding = accepts.best(func(c coding) bool { return r.h.level(c) >= 0 })
	if r.coding == identity || !r.h.enter() {
		return
	}
	r.inside = true
	to.Header.Set("Content-Encoding", r.coding.String())
	to.Header.Del("Accept-Ranges") // of other bytes
	weaken(&to.Header)
	if x.Record.Method == http.MethodHead {
		to.FilterBody(func(body io.Reader) io.Reader { return body }) // takes the length away, as a GET has none, and no compressor
		return
	}
	r.stream.flush = to.ContentLength < 0
	to.FilterBody(r.compress)
}

// compress is an [l7.BodyFilter].
func (r *reply) compress(body io.Reader) io.Reader {
	l4.TakeTurn() // before there is a compressor: the next reply may use the same
	s := &r.stream
	s.body, s.c, s.pool = body, r.h.compressor(r.coding), &r.h.pools[r.coding]
	return s
}

// end gives the place back.
func (r *reply) end() {
	r.over = true
	if r.inside {
		r.h.open.Add(-1)
	}
}

// notModified edits a 304, which has the fields that a 200 would have had (RFC 9110,
// section 15.4.5): the tag that the client knows, and Vary. A 304 seldom says which type
// the 200 would have.
func (r *reply) notModified(f *l7.Fields) {
	if t := f.Get("Content-Type"); t != "" && !r.h.types.holds(t) {
		return
	}
	vary(f)
	if tag := f.Get("ETag"); lists(r.tags, "W/"+tag) && !lists(r.tags, tag) {
		weaken(f)
	}
}

// suits reports whether a reply may be compressed if its client accepts it.
func (h *Replies) suits(to *l7.Reply) bool {
	switch to.Status {
	case http.StatusNoContent, http.StatusResetContent, http.StatusPartialContent:
		return false
	}
	typ := to.Header.Get("Content-Type")
	if typ == "" || to.Status < 200 || !h.types.holds(typ) {
		return false
	}
	for name, v := range to.Header.All() {
		switch {
		case isCoded(name),
			len(name) == len("Cache-Control") && strings.EqualFold(name, "Cache-Control") && hasMember(v, "no-transform"),
			len(name) == len("Trailer") && strings.EqualFold(name, "Trailer") && slices.ContainsFunc(strings.Split(v, ","), announcesDigest):
			return false
		}
	}
	return true
}

// isCoded reports whether a field says that the bytes of a body have to stay as they are:
// that they have a coding, are a part, or have a digest (RFC 9530).
func isCoded(name string) bool {
	switch len(name) {
	case 6:
		return strings.EqualFold(name, "Digest")
	case 11:
		return strings.EqualFold(name, "Repr-Digest") || strings.EqualFold(name, "Content-MD5")
	case 13:
		return strings.EqualFold(name, "Content-Range")
	case 14:
		return strings.EqualFold(name, "Content-Digest")
	case 16:
		return strings.EqualFold(name, "Content-Encoding")
	}
	return false
}

// announcesDigest reports whether a member of Trailer is a field that isCoded knows.
func announcesDigest(member string) bool { return isCoded(strings.Trim(member, " \t")) }

// vary adds Accept-Encoding to Vary.
func vary(f *l7.Fields) {
	for v := range f.Values("Vary") {
		if hasMember(v, "Accept-Encoding") || hasMember(v, "*") {
			return
		}
	}
	f.Add("Vary", "Accept-Encoding")
}

func hasMember(list, member string) bool {
	for m := range strings.SplitSeq(list, ",") {
		if strings.EqualFold(strings.Trim(m, " \t"), member) {
			return true
		}
	}
	return false
}

// misconfigured answers what a handler that is wrong cannot serve.
func misconfigured(x *l7.Exchange, wrong error) {
	x.Record.Err = wrong
	x.Error(http.StatusInternalServerError, l4.Termination{Cause: l4.Internal, Phase: l4.PhaseRequest})
}

// orDefault implements "0 means def". Negative stays as it is.
func orDefault(v, def int) int {
	if v == 0 {
		return def
	}
	return v
}
