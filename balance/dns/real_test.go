// SPDX-License-Identifier: Apache-2.0

package dns_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/balance/dns"
)

// A resolver is a program of the machine that can serve a zone of ours.
type resolver struct {
	name  string
	conf  func(dir, port string, zone []record) string
	start func(conf string) []string
}

type record struct{ name, kind, data string }

var resolvers = []resolver{{
	"dnsmasq",
	func(dir, port string, zone []record) string {
		var b strings.Builder
		fmt.Fprintf(&b, "port=%s\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\nlocal-ttl=1\nlocal=/example/\npid-file=\n", port)
		var hosts strings.Builder
		for _, r := range zone {
			switch r.kind {
			case "A", "AAAA":
				fmt.Fprintf(&hosts, "%s %s\n", r.data, r.name)
			case "SRV":
				f := strings.Fields(r.data)
				fmt.Fprintf(&b, "srv-host=%s,%s,%s,%s,%s\n", r.name, f[3], f[2], f[0], f[1])
			}
		}
		_ = os.WriteFile(filepath.Join(dir, "hosts"), []byte(hosts.String()), 0o644)
		fmt.Fprintf(&b, "addn-hosts=%s\n", filepath.Join(dir, "hosts"))
		return b.String()
	},
	func(conf string) []string {
		args := []string{"--keep-in-foreground", "--log-facility=-", "--conf-file=" + conf}
		if os.Geteuid() == 0 {
			args = append(args, "--user=root") // its own user cannot read the folder of a test
		}
		return args
	},
}, {
	"unbound",
	func(dir, port string, zone []record) string {
		var b strings.Builder
		fmt.Fprintf(&b, `server:
	interface: 127.0.0.1@%s
	do-daemonize: no
	use-syslog: no
	logfile: ""
	username: ""
	chroot: ""
	directory: %q
	pidfile: ""
	local-zone: "example." static
	local-zone: "refused.example." refuse
`, port, dir)
		for _, r := range zone {
			data := r.data
			if r.kind == "SRV" {
				data += "."
			}
			fmt.Fprintf(&b, "\tlocal-data: \"%s. 1 IN %s %s\"\n", r.name, r.kind, data)
		}
		return b.String() + "remote-control:\n\tcontrol-enable: no\n"
	},
	func(conf string) []string { return []string{"-d", "-c", conf} },
}}

// freePort returns a port that is free for TCP and UDP, below those that the
// system gives to clients: one of them may not take it in between.
func freePort(t *testing.T) string {
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 5000+rand.IntN(5000))
		pc, err := net.ListenPacket("udp", addr)
		if err != nil {
			continue
		}
		ln, err := net.Listen("tcp", addr)
		_ = pc.Close()
		if err != nil {
			continue
		}
		_ = ln.Close()
		_, port, _ := net.SplitHostPort(addr)
		return port
	}
	t.Fatal("no free port")
	return ""
}

// run starts the resolver with that zone, or skips the test if it is not there, and
// returns its address and what restarts it with another.
func (r resolver) run(t *testing.T, zone []record) (addr string, change func([]record)) {
	path, err := exec.LookPath(r.name)
	if err != nil {
		if path = "/usr/sbin/" + r.name; !isFile(path) {
			t.Skip("no " + r.name + " here")
		}
	}
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	port := freePort(t)
	addr = net.JoinHostPort("127.0.0.1", port)
	conf := filepath.Join(dir, "conf")
	var cmd *exec.Cmd
	up := func(zone []record) {
		require.NoError(t, os.WriteFile(conf, []byte(r.conf(dir, port, zone)), 0o644))
		cmd = exec.Command(path, r.start(conf)...)
		var log strings.Builder
		cmd.Stdout, cmd.Stderr = &log, &log
		require.NoError(t, cmd.Start())
		for range 200 {
			if c, err := net.Dial("tcp", addr); err == nil {
				_ = c.Close()
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		down(cmd)
		t.Fatalf("%s does not start: %s", r.name, log.String())
	}
	up(zone)
	t.Cleanup(func() { down(cmd) })
	return addr, func(zone []record) { down(cmd); up(zone) }
}

func down(cmd *exec.Cmd) {
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait()
}

func isFile(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// follow has a pool follow src until the test ends.
func follow(t *testing.T, src balance.Source) *balance.Pool {
	p := &balance.Pool{OnEvent: func(balance.Event) {}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = p.Follow(ctx, src) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return p
}

func addrs(p *balance.Pool) string {
	var all []string
	for s := range p.All() {
		all = append(all, fmt.Sprintf("%s/%d/%d", s.Addr(), s.Endpoint().Weight, s.Endpoint().Tier))
	}
	return strings.Join(all, " ")
}

func becomes(t *testing.T, p *balance.Pool, want string) {
	t.Helper()
	require.Eventually(t, func() bool { return addrs(p) == want }, 20*time.Second, 10*time.Millisecond, "%s; now: %s", want, addrs(p))
}

// Against resolvers as they are: both families, services, names without one
// family, answers that need TCP, names that are not there, refusals, a change,
// and a resolver that is away for a while.
func TestRealResolvers(t *testing.T) {
	zone := []record{
		{"web.example", "A", "10.0.0.1"}, {"web.example", "AAAA", "2001:db8::1"}, {"four.example", "A", "10.0.0.4"},
		{"_http._tcp.example", "SRV", "10 60000 8080 web.example"}, {"_http._tcp.example", "SRV", "20 5 8081 four.example"},
	}
	var many []string
	for i := range 200 {
		a := fmt.Sprintf("10.1.0.%d", i)
		zone = append(zone, record{"many.example", "A", a})
		many = append(many, a+":80/0/0")
	}
	for _, r := range resolvers {
		t.Run(r.name, func(t *testing.T) {
			addr, change := r.run(t, zone)
			src := func(name, service string, port int) *dns.Source {
				return &dns.Source{Name: name, Service: service, Port: port, Servers: []string{addr}, Timeout: time.Second, Retry: 100 * time.Millisecond}
			}
			web, four := follow(t, src("web.example", "", 80)), follow(t, src("four.example", "", 80))
			srv, lots := follow(t, src("example", "http", 0)), follow(t, src("many.example", "", 80))
			becomes(t, web, "10.0.0.1:80/0/0 [2001:db8::1]:80/0/0")
			becomes(t, four, "10.0.0.4:80/0/0")
			becomes(t, srv, "10.0.0.1:8080/32767/0 [2001:db8::1]:8080/32767/0 10.0.0.4:8081/60/1")
			require.Eventually(t, func() bool { return len(strings.Fields(addrs(lots))) == len(many) }, 10*time.Second, 10*time.Millisecond)
			for _, a := range many {
				require.Contains(t, addrs(lots), a)
			}
			for name, want := range map[string]error{"nobody.example": dns.ErrNoName, "x.refused.example": dns.ErrNoAnswer} {
				if r.name == "dnsmasq" && want == dns.ErrNoAnswer {
					continue // it knows no refusal of part of a zone
				}
				ctx, cancel := context.WithCancelCause(t.Context())
				err := src(name, "", 80).Watch(ctx, func(_ []balance.Endpoint, err error) { cancel(err) })
				require.ErrorIs(t, err, want, name)
			}

			change(append(zone[1:3:3], record{"web.example", "A", "10.0.0.9"}, record{"_http._tcp.example", "SRV", "10 1 80 four.example"}))
			becomes(t, web, "10.0.0.9:80/0/0 [2001:db8::1]:80/0/0")
			becomes(t, srv, "10.0.0.4:80/12/0")
			require.Eventually(t, func() bool {
				st, _ := lots.SourceState()
				return errors.Is(st.Err, dns.ErrNoName) && len(strings.Fields(addrs(lots))) == len(many)
			}, 10*time.Second, 10*time.Millisecond, "a name that is gone keeps its servers, and says so")
		})
	}
}
