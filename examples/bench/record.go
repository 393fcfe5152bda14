// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"slices"
)

// A Record is all that a run has found; reports are drawn from it alone.
type Record struct {
	Date     string // year, month, day
	Machine  Machine
	Note     string // what the reader should know of the machine
	Load     string // the programs that asked
	Origin   string // the program that answered
	Rounds   int
	Sized    int     // rounds of modes with sizes
	Seconds  float64 // of a round
	Peers    []Taking
	Results  []Result
	Skipped  []string          `json:",omitempty"` // sizes that could not be measured, and why
	Commands map[string]string // of each peer in mode "peers"
	Configs  map[string]string // by file, as in mode "peers", at example addresses
}

// A Machine is where the run was.
type Machine struct {
	CPU        string
	Processors int
	Kernel     string
}

// A Taking is a peer and its version, or why it did not take part.
type Taking struct {
	Name    string
	Version string `json:",omitempty"`
	Missing string `json:",omitempty"`
}

// A Result is what one peer did in one scenario, the medians of all rounds.
type Result struct {
	Mode     string
	Scenario string
	Size     int `json:",omitempty"` // in a mode with sizes
	Peer     string
	CPU      float64 `json:",omitempty"` // µs a unit of work
	Low      float64 `json:",omitempty"` // the least and the most CPU of a round
	High     float64 `json:",omitempty"`
	Rate     float64 `json:",omitempty"` // units a second
	P99      float64 `json:",omitempty"` // ms; 99 of 100 replies came within it
	Memory   float64 `json:",omitempty"` // bytes after the rounds; in mode "idle", of each connection
	Base     float64 `json:",omitempty"` // bytes before, in mode "idle"
	Failed   int     `json:",omitempty"` // requests without a proper reply
}

// of returns the result of a peer, nil if there is none.
func (r *Record) of(mode, scenario string, size int, peer string) *Result {
	i := slices.IndexFunc(r.Results, func(x Result) bool {
		return x.Mode == mode && x.Scenario == scenario && x.Size == size && x.Peer == peer
	})
	if i < 0 {
		return nil
	}
	return &r.Results[i]
}

// sizes returns those of a mode that have results, in order.
func (r *Record) sizes(mode string) (sizes []int) {
	for _, x := range r.Results {
		if x.Mode == mode && !slices.Contains(sizes, x.Size) {
			sizes = append(sizes, x.Size)
		}
	}
	slices.Sort(sizes)
	return sizes
}

// took returns the peers that took part, with the titles of reports.
func (r *Record) took() (names []Taking) {
	for _, p := range r.Peers {
		if p.Missing == "" {
			names = append(names, p)
		}
	}
	return names
}

// title returns how reports call a peer.
func title(name string) string {
	for _, p := range peers {
		if p.Name == name {
			return p.Title
		}
	}
	return name
}

func readRecord(file string) (*Record, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := new(Record)
	return r, json.Unmarshal(text, r)
}

func (r *Record) write(file string) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}
