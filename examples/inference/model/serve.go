// SPDX-License-Identifier: Apache-2.0

package model

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// request is what is read of a request for chat or a completion.
type request struct {
	Model     string `json:"model"`
	Stream    bool   `json:"stream"`
	MaxTokens int    `json:"max_tokens"`
	Prompt    string `json:"prompt"`
	Messages  []struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	} `json:"messages"`
}

// text returns the prompt as the model gets it.
func (r *request) text() string {
	var b strings.Builder
	b.WriteString(r.Prompt)
	for _, m := range r.Messages {
		b.WriteString("<" + m.Role + ">" + m.Content)
	}
	return b.String()
}

// ServeHTTP serves /v1/chat/completions, /v1/completions, /metrics and /health.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/v1/chat/completions", "/v1/completions":
		s.complete(w, r)
	case "/metrics":
		s.metrics(w)
	case "/health":
	default:
		http.NotFound(w, r)
	}
}

func (s *Server) complete(w http.ResponseWriter, r *http.Request) {
	var req request
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 8<<20)).Decode(&req); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var all strings.Builder
	err := s.Generate(r.Context(), Split(req.text()), min(or(req.MaxTokens, 16), 4096), func(i int) error {
		word := fmt.Sprintf("word%d ", i)
		if !req.Stream {
			all.WriteString(word)
			return nil
		}
		if i == 0 {
			w.Header().Set("Content-Type", "text/event-stream")
		}
		fmt.Fprintf(w, "data: {\"choices\":[{\"text\":%q,\"delta\":{\"content\":%q}}]}\n\n", word, word)
		return http.NewResponseController(w).Flush()
	})
	switch {
	case err != nil: // the client has gone
	case req.Stream:
		fmt.Fprint(w, "data: [DONE]\n\n")
	default:
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, "{\"choices\":[{\"text\":%q,\"message\":{\"role\":\"assistant\",\"content\":%q}}]}\n", all.String(), all.String())
	}
}

// metrics writes some of the metrics that vLLM has, in the text format of Prometheus.
func (s *Server) metrics(w http.ResponseWriter) {
	f := s.Figures()
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	for _, m := range []struct {
		name, kind string
		value      float64
	}{
		{"vllm:num_requests_running", "gauge", float64(f.Running)},
		{"vllm:num_requests_waiting", "gauge", float64(f.Waiting)},
		{"vllm:kv_cache_usage_perc", "gauge", f.CacheUsage()},
		{"vllm:prefix_cache_queries_total", "counter", float64(f.Asked * 16)},
		{"vllm:prefix_cache_hits_total", "counter", float64(f.Hits * 16)},
	} {
		fmt.Fprintf(w, "# TYPE %s %s\n%s{engine=\"0\",model_name=\"fake\"} %v\n", m.name, m.kind, m.name, m.value)
	}
}
