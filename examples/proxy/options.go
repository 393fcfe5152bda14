// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/penstock-lb/penstock/balance"
)

// Options is what the command line says.
type Options struct {
	HTTP, TLS, TCP string // addresses to listen on; empty means no such front
	UDP            string // as these
	Cert, Key      string // PEM files of TLS
	Front          string // "byte" or "standard": which one serves HTTP
	Balance        string // one of policyNames
	CheckPath      string // empty means TCP checks
	CheckInterval  time.Duration
	Timeout        time.Duration // 0 means the library's own defaults
	To             []string      // servers, as parseTarget reads them
	From           string        // a file of servers instead, as package file reads it
	CA             string        // PEM file of what https servers are verified by; empty means the system's
	Insecure       bool          // https servers are not verified
	CPUProfile     string        // a file; empty means none

	secure *tls.Config // for https servers; set by Run
}

// policyNames are the values of -balance.
const policyNames = "roundrobin|leastconn|random|random2|first|ewma|ring|maglev|rendezvous"

// policyOf returns the policy of that name, nil if there is none. One that
// hashes takes the address of the client as its key.
func policyOf(name string) (p balance.Policy, hashes bool) {
	switch name {
	case "roundrobin":
		return balance.RoundRobin{}, false
	case "leastconn":
		return balance.LeastConn{}, false
	case "random":
		return balance.Random{}, false
	case "random2":
		return balance.TwoChoices{}, false
	case "first":
		return balance.First{}, false
	case "ewma":
		return balance.PeakEWMA{}, false
	case "ring":
		return balance.Ring{}, true
	case "maglev":
		return balance.Maglev{}, true
	case "rendezvous":
		return balance.Rendezvous{}, true
	}
	return nil, false
}

// ParseOptions reads the command line. It writes mistakes to stderr and returns them;
// flag.ErrHelp means that help was asked for.
func ParseOptions(args []string, stderr io.Writer) (*Options, error) {
	o := &Options{}
	f := flag.NewFlagSet("proxy", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprintln(stderr, "usage: proxy [flags] -to SERVER [-to SERVER ...]\nAt least one of -http, -tls, -tcp and -udp is needed; all share one pool.")
		f.PrintDefaults()
	}
	f.StringVar(&o.HTTP, "http", "", "serve HTTP/1.1 and prior-knowledge h2c on `ADDR`")
	f.StringVar(&o.TLS, "tls", "", "serve HTTP/1.1 and HTTP/2 over TLS on `ADDR`; needs -cert and -key")
	f.StringVar(&o.Cert, "cert", "", "certificate chain of -tls, a PEM `FILE`")
	f.StringVar(&o.Key, "key", "", "private key of -tls, a PEM `FILE`")
	f.StringVar(&o.TCP, "tcp", "", "relay TCP on `ADDR`")
	f.StringVar(&o.UDP, "udp", "", "relay datagrams on `ADDR`; servers that take no TCP connections need -check-interval 0")
	f.StringVar(&o.Front, "front", "byte", "what serves HTTP: byte (l7.Server) or standard (http.Server), `NAME`")
	f.StringVar(&o.Balance, "balance", "random2", "how a server is chosen: `"+policyNames+"`; the last three by client address")
	f.StringVar(&o.CheckPath, "check-path", "", "check servers by HTTP with this `PATH`; without it, by a TCP connection")
	f.DurationVar(&o.CheckInterval, "check-interval", 2*time.Second, "time between two checks of a server; 0 means no checks")
	f.DurationVar(&o.Timeout, "timeout", 0, "bound of a request's head, a stalled body, an idle client connection and a silent server; 0 means the library's defaults")
	f.Func("to", "a `SERVER`, HOST:PORT or unix:/PATH, alone or behind http://, h2c:// (HTTP/2 by prior knowledge) or https:// (HTTP/2 or HTTP/1, as the server chooses); repeat it for more; -tcp and -udp relay bytes whatever it says", func(s string) error {
		o.To = append(o.To, s)
		_, err := parseTarget(s)
		return err
	})
	f.StringVar(&o.From, "from", "", "a `FILE` of servers instead of -to, which is followed as it changes: lines such as 10.0.0.1:80 weight=3, with label.scheme=https or h2c for what is not http, or JSON")
	f.StringVar(&o.CA, "ca", "", "certificates that https servers are verified by, a PEM `FILE`; without it, the system's")
	f.BoolVar(&o.Insecure, "insecure", false, "do not verify https servers, for tests")
	f.StringVar(&o.CPUProfile, "cpuprofile", "", "write a CPU profile of the run to `FILE`")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if err := o.check(f.Args()); err != nil {
		fmt.Fprintf(stderr, "proxy: %v\n(proxy -h lists the flags)\n", err)
		return nil, err
	}
	return o, nil
}

// check says what is wrong with the flags, each alone and all together.
func (o *Options) check(rest []string) error {
	for _, front := range []struct{ flag, addr string }{{"-http", o.HTTP}, {"-tls", o.TLS}, {"-tcp", o.TCP}, {"-udp", o.UDP}} {
		if _, _, err := net.SplitHostPort(front.addr); front.addr != "" && err != nil {
			return fmt.Errorf("%s %q: want HOST:PORT or :PORT", front.flag, front.addr)
		}
	}
	policy, _ := policyOf(o.Balance)
	switch {
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument %q", rest[0])
	case o.HTTP == "" && o.TLS == "" && o.TCP == "" && o.UDP == "":
		return errors.New("nothing to serve: give at least one of -http, -tls, -tcp and -udp")
	case len(o.To) == 0 && o.From == "":
		return errors.New("no server: give at least one -to SERVER, or -from FILE")
	case len(o.To) > 0 && o.From != "":
		return errors.New("-to is of no use with -from")
	case o.TLS != "" && (o.Cert == "" || o.Key == ""):
		return errors.New("-tls needs -cert and -key")
	case o.TLS == "" && (o.Cert != "" || o.Key != ""):
		return errors.New("-cert and -key are of no use without -tls")
	case !slices.Contains([]string{"byte", "standard"}, o.Front):
		return fmt.Errorf("-front %q: want byte or standard", o.Front)
	case policy == nil:
		return fmt.Errorf("-balance %q: want %s", o.Balance, policyNames)
	case o.CheckPath != "" && !strings.HasPrefix(o.CheckPath, "/"):
		return fmt.Errorf("-check-path %q: want a path that begins with /", o.CheckPath)
	case o.CheckInterval < 0:
		return fmt.Errorf("-check-interval %v: want zero or more", o.CheckInterval)
	case o.Timeout < 0:
		return fmt.Errorf("-timeout %v: want zero or more", o.Timeout)
	case o.CA != "" && o.Insecure:
		return errors.New("-ca is of no use with -insecure")
	case (o.CA != "" || o.Insecure) && !o.secures():
		return errors.New("-ca and -insecure are of no use without -to https://HOST:PORT")
	}
	if o.TLS != "" {
		if _, err := tls.LoadX509KeyPair(o.Cert, o.Key); err != nil {
			return fmt.Errorf("-cert %q, -key %q: %w", o.Cert, o.Key, err)
		}
	}
	if o.From != "" {
		all, err := o.file()
		if err == nil {
			err = new(balance.Pool).Set(all...)
		}
		if err != nil {
			return fmt.Errorf("-from %q: %w", o.From, err)
		}
	}
	_, err := o.clientTLS()
	return err
}
