// SPDX-License-Identifier: Apache-2.0

package l4_test

import (
	"context"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock"
	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/ratelimit"
)

// hostHandler is a handler of a host's own that takes part in checks.
type hostHandler struct{ Next l4.Handler }

func (h hostHandler) ServeConn(ctx context.Context, c net.Conn) error {
	return h.Next.ServeConn(ctx, c)
}

func (h hostHandler) Check() error {
	var m penstock.Mistakes
	m.In("hostHandler.Next", h.Next)
	return m.Err()
}

func TestServeRefusesAWrongTree(t *testing.T) {
	n := l4test.NewNetwork()
	ln, err := n.Listen("tcp", "front:1")
	require.NoError(t, err)
	s := &l4.Server{Handler: &l4.Router{Routes: []l4.Route{
		{Handler: &l4.Limit{All: &ratelimit.Limiter{Law: ratelimit.Unlimited{}}}},
		{Handler: hostHandler{&l4.Proxy{BufferBytes: -1}}},
	}}}
	err = s.Serve(ln)
	require.EqualError(t, err, `penstock: Server.Handler.Router.Routes[0].Handler.Limit.Next: <nil> must be the handler that goes on
penstock: Server.Handler.Router.Routes[1].Handler.hostHandler.Next.Proxy.Pool: <nil> must be the pool of servers
penstock: Server.Handler.Router.Routes[1].Handler.hostHandler.Next.Proxy.BufferBytes: -1 must not be negative`)
	_, err = n.DialContext(t.Context(), "tcp", "front:1")
	require.Error(t, err, "the listener is closed")
	require.ErrorContains(t, (&l4.Server{}).Check(), "Server.Handler")
}

// TestCheckOfATreeThatLeadsBack has a router inside of itself, as one that
// routes by what is inside of TLS as well.
func TestCheckOfATreeThatLeadsBack(t *testing.T) {
	r := &l4.Router{}
	limit := &l4.Limit{Next: r, All: &ratelimit.Limiter{Law: ratelimit.Unlimited{}}, Refuse: &l4.Proxy{}}
	r.Default = limit
	err := r.Check()
	require.EqualError(t, err, "penstock: Router.Default.Limit.Refuse.Proxy.Pool: <nil> must be the pool of servers")
	limit.Refuse = nil
	require.NoError(t, r.Check())
	limit.Next = (*l4.Proxy)(nil)
	require.EqualError(t, r.Check(), "penstock: Router.Default.Limit.Next: <nil> must be the handler that goes on")
}

// TestHandlersCheckThemselvesFirst uses each without a Server of ours.
func TestHandlersCheckThemselvesFirst(t *testing.T) {
	for name, h := range map[string]l4.Handler{
		"Router": &l4.Router{}, "Proxy": &l4.Proxy{}, "Limit": &l4.Limit{}, "Throttle": &l4.Throttle{},
		"AcceptProxy": &l4.AcceptProxy{}, "AcceptPostgreSQL": &l4.AcceptPostgreSQL{}, "TerminateTLS": &l4.TerminateTLS{},
	} {
		for range 2 { // and go on to
			client, server := net.Pipe()
			var wrong *penstock.ConfigError
			require.ErrorAs(t, h.ServeConn(t.Context(), server), &wrong, name)
			_, err := client.Read(make([]byte, 1))
			require.Error(t, err, "%s closes the connection", name)
		}
	}
	var wrong *penstock.ConfigError
	_, err := (&l4.Dialer{}).DialContext(t.Context(), "tcp", "")
	require.ErrorAs(t, err, &wrong)
	_, err = (&l4.PacedListener{Listener: new(l4.Listener)}).Accept()
	require.ErrorAs(t, err, &wrong)
	_, err = (&l4.ListenConfig{Socket: l4.SocketOptions{UserTimeout: -1}}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.ErrorAs(t, err, &wrong)
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	_, err = (&l4.SendProxy{Version: 3}).Handshake(t.Context(), client, server, nil)
	require.ErrorAs(t, err, &wrong)
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	require.ErrorAs(t, (&l4.UDPProxy{}).Serve(pc), &wrong)
}

// TestFirstUseCostsNothingLater is about the check that each connection asks for.
func TestFirstUseCostsNothingLater(t *testing.T) {
	d := &l4.Dialer{Pool: &balance.Pool{}, Dial: func(context.Context, string, string) (net.Conn, error) { return nil, net.ErrClosed }}
	_, err := d.DialContext(t.Context(), "tcp", "")
	require.ErrorIs(t, err, balance.ErrNoServer)
	d.Pool = nil // not looked at again
	require.Panics(t, func() { d.DialContext(t.Context(), "tcp", "") })
}
