// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
)

// TestRedirect runs TestRedirected in a network of its own, where it is root and may set up a
// firewall.
func TestRedirect(t *testing.T) {
	for _, name := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRedirected$", "-test.v", "-test.timeout=1m")
	cmd.Env = append(os.Environ(), "PENSTOCK_NETWORK=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if cmd.Process == nil {
		t.Skip("no network namespaces: ", err)
	}
	if strings.Contains(string(out), "--- SKIP: TestRedirected (") {
		t.Skip(string(out))
	}
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: TestRedirected (")
}

// A host is a machine of a network of machines: a thread in a network namespace of its own.
type host struct{ do chan func() }

// newHost returns a host joined to this process' namespace by the interface name, which has
// the first address of the prefixes there; the host has the second.
func newHost(t *testing.T, name string, prefixes ...string) *host {
	h := &host{do: make(chan func())}
	namespace := make(chan string)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
			close(namespace)
			return
		}
		namespace <- fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), syscall.Gettid())
		for f := range h.do {
			f()
		}
	}()
	ns, ok := <-namespace
	if !ok {
		t.Skip("no further network namespace")
	}
	t.Cleanup(func() { close(h.do) })
	require.NoError(t, command("ip", "link", "add", name, "type", "veth", "peer", "name", "gateway", "netns", ns))
	require.NoError(t, command("ip", "link", "set", name, "up"))
	h.command(t, "ip", "link", "set", "gateway", "up")
	for _, p := range prefixes {
		prefix := netip.MustParsePrefix(p)
		here := prefix.Masked().Addr().Next()
		require.NoError(t, command("ip", "address", "add", netip.PrefixFrom(here, prefix.Bits()).String(), "dev", name, "nodad"))
		h.command(t, "ip", "address", "add", netip.PrefixFrom(here.Next(), prefix.Bits()).String(), "dev", "gateway", "nodad")
		h.command(t, "ip", "route", "add", "default", "via", here.String())
	}
	return h
}

// run runs f as a part of the host: its sockets and commands are there.
func (h *host) run(t *testing.T, f func() error) {
	done := make(chan error)
	h.do <- func() { done <- f() }
	require.NoError(t, <-done)
}

func (h *host) command(t *testing.T, name string, args ...string) {
	h.run(t, func() error { return command(name, args...) })
}

func (h *host) dial(t *testing.T, network, addr string) (c net.Conn) {
	h.run(t, func() (err error) {
		c, err = net.DialTimeout(network, addr, 30*time.Second)
		return err
	})
	require.NoError(t, c.SetDeadline(time.Now().Add(30*time.Second)))
	return c
}

func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %v: %w: %s", name, args, err, out)
	}
	return nil
}

// The firewall of the gateway. Port 80 is redirected, 81 gets another destination, 82 is
// handed over with its destination as it was; what comes back for sockets with addresses of
// clients is delivered here.
const redirectRules = `
table inet penstock {
	chain nat {
		type nat hook prerouting priority dstnat
		iifname "clients" tcp dport 80 redirect to :8080
		iifname "clients" meta nfproto ipv4 tcp dport 81 dnat ip to 192.0.2.1:8080
		iifname "clients" meta nfproto ipv6 tcp dport 81 dnat ip6 to [2001:db8:2::1]:8080
	}
	chain divert {
		type filter hook prerouting priority mangle
		iifname "servers" meta l4proto { tcp, udp } socket transparent 1 meta mark set 1 accept
		iifname "clients" meta nfproto ipv4 tcp dport 82 tproxy ip to :8082 meta mark set 1 accept
		iifname "clients" meta nfproto ipv6 tcp dport 82 tproxy ip6 to :8082 meta mark set 1 accept
	}
}
`

// TestRedirected is a gateway between clients and servers, each in a network of its own, with
// what firewalls do to connections on their way.
func TestRedirected(t *testing.T) {
	if os.Getenv("PENSTOCK_NETWORK") == "" {
		t.Skip("it is a part of TestRedirect")
	}
	require.NoError(t, command("ip", "link", "set", "lo", "up"))
	clients := newHost(t, "clients", "192.0.2.0/24", "2001:db8:2::/64")
	servers := newHost(t, "servers", "198.51.100.0/24", "2001:db8:5::/64")
	rules := filepath.Join(t.TempDir(), "rules")
	require.NoError(t, os.WriteFile(rules, []byte(redirectRules), 0o600))
	if out, err := exec.Command("nft", "-f", rules).CombinedOutput(); err != nil {
		t.Skipf("no nftables: %s", out)
	}
	for _, family := range []string{"-4", "-6"} {
		require.NoError(t, command("ip", family, "rule", "add", "fwmark", "1", "lookup", "100"))
		require.NoError(t, command("ip", family, "route", "add", "local", "default", "dev", "lo", "table", "100"))
	}
	t.Run("destination", func(t *testing.T) { testOriginalDst(t, clients) })
	t.Run("source", func(t *testing.T) { testTransparentSource(t, clients, servers) })
	t.Run("datagrams", func(t *testing.T) { testTransparentDatagrams(t, clients, servers) })
}

// testOriginalDst: OriginalDst is what the client has dialed, whatever the firewall does.
func testOriginalDst(t *testing.T, clients *host) {
	for _, at := range []struct {
		network, listen string
		transparent     bool
		dials           []string
	}{
		{"tcp4", ":8080", false, []string{"203.0.113.7:80", "203.0.113.7:81", "192.0.2.1:8080"}},
		{"tcp6", ":8080", false, []string{"[2001:db8:9::7]:80", "[2001:db8:9::7]:81", "[2001:db8:2::1]:8080"}},
		{"tcp", ":8080", false, []string{"203.0.113.7:80", "203.0.113.7:81", "192.0.2.1:8080", "[2001:db8:9::7]:80", "[2001:db8:9::7]:81"}},
		{"tcp4", ":8082", true, []string{"203.0.113.7:82"}},
		{"tcp6", ":8082", true, []string{"[2001:db8:9::7]:82"}},
	} {
		ln, err := (&ListenConfig{Socket: SocketOptions{Transparent: at.transparent}}).Listen(t.Context(), at.network, at.listen)
		require.NoError(t, err)
		for _, addr := range at.dials {
			c := clients.dial(t, "tcp", addr)
			got, err := ln.Accept()
			require.NoError(t, err)
			dst, err := OriginalDst(got)
			local, _ := addrPort(got.LocalAddr())
			direct := at.transparent || strings.HasSuffix(addr, ":8080")
			if direct {
				require.Equal(t, addr, local.String())
			}
			if !direct || err == nil { // of one that was not redirected it is an error, or that address
				require.NoError(t, err, "%s %s", at.network, addr)
				require.Equal(t, addr, dst.String())
			}
			wrapped, err2 := OriginalDst(NewConn(got))
			require.Equal(t, dst, wrapped)
			require.Equal(t, err == nil, err2 == nil)
			c.Close()
			got.Close()
		}
		require.NoError(t, ln.Close())
	}
}

// testTransparentSource is a transparent proxy: it goes on to where the client wanted, from
// the client's address.
func testTransparentSource(t *testing.T, clients, servers *host) {
	for _, at := range []struct{ server, client string }{
		{"198.51.100.2:80", "192.0.2.2"},
		{"[2001:db8:5::2]:80", "2001:db8:2::2"},
	} {
		var server net.Listener
		servers.run(t, func() (err error) {
			server, err = net.Listen("tcp", at.server)
			return err
		})
		go func() {
			for {
				c, err := server.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(c, c.RemoteAddr().(*net.TCPAddr).IP.String())
				c.Close()
			}
		}()
		pool := &balance.Pool{}
		require.NoError(t, pool.Set(balance.Endpoint{Addr: "anywhere:1"}))
		socket := &SocketOptions{Transparent: true}
		srv := &Server{Handler: &Proxy{Pool: pool, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			client, _ := DialingFor(ctx)
			dst, err := OriginalDst(client.Conn)
			if err != nil {
				return nil, err
			}
			return socket.DialContext(ctx, network, dst.String())
		}}}
		ln, err := (&ListenConfig{}).Listen(t.Context(), "tcp", ":8080")
		require.NoError(t, err)
		served := make(chan error, 1)
		go func() { served <- srv.Serve(ln) }()
		said, err := io.ReadAll(clients.dial(t, "tcp", at.server))
		require.NoError(t, err)
		require.Equal(t, at.client, string(said))
		require.NoError(t, srv.Close())
		require.ErrorIs(t, <-served, ErrServerClosed)
		server.Close()
	}
}

// testTransparentDatagrams: a UDPProxy sends from the client's address too.
func testTransparentDatagrams(t *testing.T, clients, servers *host) {
	for _, at := range []struct{ server, gateway, client string }{
		{"198.51.100.2:53", "192.0.2.1:53", "192.0.2.2"},
		{"[2001:db8:5::2]:53", "[2001:db8:2::1]:53", "2001:db8:2::2"},
	} {
		var server net.PacketConn
		servers.run(t, func() (err error) {
			server, err = net.ListenPacket("udp", at.server)
			return err
		})
		go func() {
			for {
				_, from, err := server.ReadFrom(make([]byte, 10))
				if err != nil {
					return
				}
				_, _ = server.WriteTo([]byte(from.(*net.UDPAddr).IP.String()), from)
			}
		}()
		pool := &balance.Pool{}
		require.NoError(t, pool.Set(balance.Endpoint{Addr: at.server}))
		p := &UDPProxy{Pool: pool, Dial: (&SocketOptions{Transparent: true}).DialContext}
		gateway, err := net.ListenPacket("udp", at.gateway)
		require.NoError(t, err)
		served := make(chan error, 1)
		go func() { served <- p.Serve(gateway) }()
		c := clients.dial(t, "udp", at.gateway)
		_, err = c.Write([]byte("?"))
		require.NoError(t, err)
		b := make([]byte, 100)
		n, err := c.Read(b)
		require.NoError(t, err)
		require.Equal(t, at.client, string(b[:n]))
		require.NoError(t, p.Close())
		require.ErrorIs(t, <-served, ErrServerClosed)
		server.Close()
		c.Close()
	}
}
