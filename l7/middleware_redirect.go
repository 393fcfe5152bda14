// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/penstock-lb/penstock/l4"
)

// Redirect redirects the client. Without To, the Location consists of the
// request's scheme, host, path and query, changed by the fields below. It is
// always an absolute URI, so that no path can lead to another host:
//
//	&l7.Redirect{Scheme: "https", Status: http.StatusPermanentRedirect}
//	&l7.Redirect{Scheme: "https", Port: 8443}
//	&l7.Redirect{Host: "www.example.com", StripPrefix: "/old"}
type Redirect struct {
	Status int // 301, 302, 303, 307 or 308; 0 means 302

	Scheme      string // if it differs from the request's, the port of the host is removed too
	Host        string // host or host:port
	Port        int    // of the Location, in place of any other; 0 leaves it as it is, or as Scheme does
	StripPrefix string // removed from the path, as in Rewrite
	AddPrefix   string // put before the path
	AppendSlash bool   // to a path that does not end in one
	DropQuery   bool

	// To returns the whole Location. If it returns "", the exchange goes to Next.
	To func(x *Exchange) string

	Header Fields // of the reply, besides Location, such as a Set-Cookie

	// Next serves exchanges for which To returns ""; nil means 404.
	Next http.Handler

	checked
}

// ServeExchange implements [Handler].
func (h *Redirect) ServeExchange(x *Exchange) {
	to := ""
	if h.To == nil {
		if x.Method == http.MethodConnect || h.Host == "" && x.authority() == "" {
			x.Error(http.StatusBadRequest, endOf(l4.Denied, l4.PhaseRequest)) // without a host there is no absolute URI
			return
		}
		to = h.location(x)
	} else if to = h.To(x); to == "" {
		if h.Next != nil {
			Serve(h.Next, x)
			return
		}
		x.Error(http.StatusNotFound, endOf(l4.Denied, l4.PhaseRequest))
		return
	}
	status := h.Status
	switch status {
	case 301, 302, 303, 307, 308:
	default:
		status = http.StatusFound
	}
	f := h.Header.Clone()
	f.Set("Location", to)
	x.Respond(status, &f, "")
}

func (h *Redirect) location(x *Exchange) string {
	scheme, host, path, query := x.Scheme, x.authority(), x.Path, x.Query
	if h.Scheme != "" && h.Scheme != scheme {
		scheme = h.Scheme
		host = dropPort(host)
	}
	if h.Host != "" {
		host = h.Host
	}
	if h.Port != 0 {
		host = dropPort(host) + ":" + strconv.Itoa(h.Port)
	}
	if path == "*" { // the host as a whole (RFC 9112, section 3.3)
		return scheme + "://" + host
	}
	if p := (PathPrefix(h.StripPrefix)); h.StripPrefix != "" && p.Match(x) {
		path = path[len(p.clean()):]
	}
	path = strings.TrimSuffix(h.AddPrefix, "/") + path
	if path == "" || h.AppendSlash && !strings.HasSuffix(path, "/") {
		path += "/"
	}
	if h.DropQuery {
		query = ""
	}
	return scheme + "://" + host + path + query
}

// dropPort returns a valid host:port without its port.
func dropPort(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.Contains(host[i:], "]") {
		return host[:i]
	}
	return host
}

// ServeHTTP implements [http.Handler].
func (h *Redirect) ServeHTTP(w http.ResponseWriter, r *http.Request) { ServeHTTP(h, w, r) }
