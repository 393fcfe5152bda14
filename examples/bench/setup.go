// SPDX-License-Identifier: Apache-2.0

package main

import (
	"embed"
	"fmt"
	"strings"
	"text/template"
)

// A Setup is what the configurations of peers are filled with.
type Setup struct {
	HTTP, TLS, TCP string   // addresses to listen on; TCP is empty if the peer has none
	Servers        []string // addresses
	Routes         int      // 0 means that everything goes to the servers
	Cores          int
	Conns          int    // the most connections of clients
	Idle           int    // connections to servers that are kept
	Cert, Key      string // PEM files
	Both           string // a PEM file with both
	Dir            string // of the configuration
	Stream         string // the file of nginx's stream module, if it must be loaded
}

// Range returns the numbers of the routes.
func (s *Setup) Range() []int {
	n := make([]int, s.Routes)
	for i := range n {
		n[i] = i
	}
	return n
}

// Port returns the port of an address.
func (*Setup) Port(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

// Small returns the small reply of the origin.
func (*Setup) Small() string { return strings.Repeat("x", 128) }

//go:embed peers
var files embed.FS

// Render fills the file of folder peers.
func (s *Setup) Render(file string) (string, error) {
	text, err := files.ReadFile("peers/" + file)
	if err != nil {
		return "", err
	}
	return s.fill(file, string(text))
}

// Args fills the arguments of a command, which blanks separate.
func (s *Setup) Args(args string) ([]string, error) {
	text, err := s.fill("arguments", args)
	return strings.Fields(text), err
}

func (s *Setup) fill(name, text string) (string, error) {
	t, err := template.New(name).Option("missingkey=error").Parse(text)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	if err := t.Execute(&b, s); err != nil {
		return "", fmt.Errorf("peers/%w", err)
	}
	return b.String(), nil
}
