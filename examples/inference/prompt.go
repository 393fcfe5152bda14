// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
)

// ByPrompt makes the key of a request out of the beginning of its prompt, so that a
// conversation, and all that begin with the same instructions, find the server that has
// them in its cache. The body goes on as it came.
type ByPrompt struct {
	Bytes int // of the body that are looked at, and of the prompt that count
	Next  http.Handler
}

// ServeExchange implements [l7.Handler].
func (h *ByPrompt) ServeExchange(x *l7.Exchange) {
	if x.Method == http.MethodPost {
		body := x.Body()
		head, _ := io.ReadAll(io.LimitReader(body, int64(h.Bytes))) // the Proxy meets the same error
		x.SetBody(io.MultiReader(bytes.NewReader(head), body), x.ContentLength)
		if p := promptOf(head, h.Bytes); p != "" {
			x.Balance.Key = balance.Hash(p)
		}
	}
	l7.Serve(h.Next, x)
}

// ServeHTTP implements [http.Handler].
func (h *ByPrompt) ServeHTTP(w http.ResponseWriter, r *http.Request) { l7.ServeHTTP(h, w, r) }

// promptOf returns the model and the beginning of the prompt that a request for a
// completion or a chat has, or nothing. Of a chat that is all up to the first message of the
// user, which stays the same from turn to turn. The body may be cut off.
func promptOf(body []byte, most int) string {
	d := json.NewDecoder(bytes.NewReader(closed(body)))
	var model, prompt string
	object(d, func(name string) {
		switch name {
		case "model":
			model = text(d)
		case "prompt":
			prompt = text(d)
		case "messages":
			prompt = messages(d)
		default:
			skip(d)
		}
	})
	if prompt == "" {
		return ""
	}
	return model + "\n" + prompt[:min(len(prompt), most)]
}

// closed ends a string in which a body may have been cut off.
func closed(body []byte) []byte {
	if i := bytes.LastIndexByte(body, '\\'); i >= 0 && len(body)-i < 6 {
		body = body[:i] // an escape may be incomplete
	}
	return append(body[:len(body):len(body)], '"')
}

// object reads an object and calls f behind each name, to read the value.
func object(d *json.Decoder, f func(name string)) {
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return
	}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return
		}
		f(name)
	}
	_, _ = d.Token()
}

// messages returns the roles and the contents up to the first of the user.
func messages(d *json.Decoder) string {
	var b strings.Builder
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return ""
	}
	for user := false; d.More(); {
		var role, content string
		before := d.InputOffset()
		object(d, func(name string) {
			switch name {
			case "role":
				role = text(d)
			case "content":
				content = text(d)
			default:
				skip(d)
			}
		})
		if d.InputOffset() == before {
			break // no object
		}
		if !user && role+content != "" {
			b.WriteString(role + ": " + content + "\n")
		}
		user = user || role == "user"
	}
	_, _ = d.Token()
	return b.String()
}

// text returns the next value if it is a string, and otherwise all strings in it: content
// may be an array of parts.
func text(d *json.Decoder) string {
	var b strings.Builder
	for depth := 0; ; {
		t, err := d.Token()
		switch t := t.(type) {
		case json.Delim:
			if depth--; t == '{' || t == '[' {
				depth += 2
			}
		case string:
			b.WriteString(t)
		}
		if err != nil || depth <= 0 {
			return b.String()
		}
	}
}

func skip(d *json.Decoder) { text(d) }
