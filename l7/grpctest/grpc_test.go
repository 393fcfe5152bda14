// SPDX-License-Identifier: Apache-2.0

package grpctest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7"
)

// service answers with what it was asked.
type service struct {
	pb.UnimplementedTestServiceServer
	left chan error // what calls that hang ended with
}

func (s *service) UnaryCall(ctx context.Context, r *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	if md, _ := metadata.FromIncomingContext(ctx); len(md["x-ask"]) > 0 {
		grpc.SetHeader(ctx, metadata.Pairs("x-head", md["x-ask"][0]))
		grpc.SetTrailer(ctx, metadata.Pairs("x-tail", md["x-ask"][0]))
	}
	if st := r.GetResponseStatus(); st != nil {
		return nil, status.Error(codes.Code(st.Code), st.Message)
	}
	return &pb.SimpleResponse{Payload: r.Payload}, nil
}

func (s *service) StreamingInputCall(stream pb.TestService_StreamingInputCallServer) error {
	n := 0
	for {
		r, err := stream.Recv()
		if err == io.EOF {
			return stream.SendAndClose(&pb.StreamingInputCallResponse{AggregatedPayloadSize: int32(n)})
		}
		if err != nil {
			return err
		}
		n += len(r.Payload.Body)
	}
}

func (s *service) StreamingOutputCall(r *pb.StreamingOutputCallRequest, stream pb.TestService_StreamingOutputCallServer) error {
	for _, p := range r.ResponseParameters {
		if p.Size < 0 { // hang
			<-stream.Context().Done()
			s.left <- stream.Context().Err()
			return stream.Context().Err()
		}
		if err := stream.Send(&pb.StreamingOutputCallResponse{Payload: &pb.Payload{Body: make([]byte, p.Size)}}); err != nil {
			return err
		}
	}
	return nil
}

func (s *service) FullDuplexCall(stream pb.TestService_FullDuplexCallServer) error {
	for {
		r, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&pb.StreamingOutputCallResponse{Payload: r.Payload}); err != nil {
			return err
		}
	}
}

// A site is a gRPC server behind a gateway.
type site struct {
	client  pb.TestServiceClient
	service *service
	pool    *balance.Pool

	mu       sync.Mutex
	outcomes []balance.Outcome
}

func (s *site) observe(_ *balance.Server, o balance.Outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outcomes = append(s.outcomes, o)
}

// lastOutcome waits for the n-th outcome and returns it.
func (s *site) outcome(t *testing.T, n int) balance.Outcome {
	t.Helper()
	for range 3000 {
		s.mu.Lock()
		if len(s.outcomes) >= n {
			defer s.mu.Unlock()
			return s.outcomes[n-1]
		}
		s.mu.Unlock()
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("no outcome number %d", n)
	panic("not reached")
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// start runs server, gateway and client: over TLS or in plain text, on the
// front of l7.Server or on a plain http.Server.
func start(t *testing.T, secure, standard bool) *site {
	s := &site{service: &service{left: make(chan error, 1)}}
	cert, roots := certificate(t)
	var opts []grpc.ServerOption
	if secure {
		opts = append(opts, grpc.Creds(credentials.NewServerTLSFromCert(&cert)))
	}
	server := grpc.NewServer(opts...)
	pb.RegisterTestServiceServer(server, s.service)
	back := listen(t)
	go server.Serve(back)
	t.Cleanup(server.Stop)

	s.pool = &balance.Pool{Name: "grpc", OnOutcome: []func(*balance.Server, balance.Outcome){s.observe}}
	if err := s.pool.Set(balance.Endpoint{Addr: back.Addr().String()}); err != nil {
		t.Fatal(err)
	}
	up := &l7.Upstream{Protocols: new(http.Protocols)}
	t.Cleanup(up.CloseIdle)
	if secure {
		up.Protocols.SetHTTP2(true)
		up.TLS = func(*balance.Server) *tls.Config { return &tls.Config{RootCAs: roots, ServerName: "grpc.test"} }
	} else {
		up.Protocols.SetUnencryptedHTTP2(true)
	}
	front := listen(t)
	cfg := &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}}
	gateway(t, &l7.Proxy{Pool: s.pool, Upstream: up}, front, cfg, secure, standard)

	creds := insecure.NewCredentials()
	if secure {
		creds = credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: "grpc.test"})
	}
	cc, err := grpc.NewClient(front.Addr().String(), grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	s.client = pb.NewTestServiceClient(cc)
	return s
}

func gateway(t *testing.T, h http.Handler, ln net.Listener, cfg *tls.Config, secure, standard bool) {
	p := new(http.Protocols)
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(true)
	var srv interface {
		Serve(net.Listener) error
		ServeTLS(net.Listener, string, string) error
		Close() error
	} = &l7.Server{Handler: h, TLSConfig: cfg, Logger: slog.New(slog.DiscardHandler)}
	if standard {
		srv = &http.Server{Handler: h, TLSConfig: cfg, Protocols: p}
	}
	if secure {
		go srv.ServeTLS(ln, "", "")
	} else {
		go srv.Serve(ln)
	}
	t.Cleanup(func() { srv.Close() })
}

func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"grpc.test"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, _ := x509.ParseCertificate(der)
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

// each runs do over both fronts, in plain text and over TLS.
func each(t *testing.T, do func(t *testing.T, ctx context.Context, s *site)) {
	for _, standard := range []bool{false, true} {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("standard=%v/tls=%v", standard, secure), func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				do(t, ctx, start(t, secure, standard))
			})
		}
	}
}

func payload(n int) *pb.Payload { return &pb.Payload{Body: make([]byte, n)} }

func TestUnary(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, s *site) {
		var head, tail metadata.MD
		ctx = metadata.AppendToOutgoingContext(ctx, "x-ask", "me")
		r, err := s.client.UnaryCall(ctx, &pb.SimpleRequest{Payload: payload(100_000)}, grpc.Header(&head), grpc.Trailer(&tail))
		if err != nil || len(r.Payload.Body) != 100_000 {
			t.Fatalf("got %d bytes, %v", len(r.GetPayload().GetBody()), err)
		}
		if fmt.Sprint(head["x-head"], tail["x-tail"]) != "[me] [me]" {
			t.Errorf("metadata: %v, %v", head, tail)
		}
		if o := s.outcome(t, 1); o.Class != balance.OK {
			t.Errorf("outcome %+v", o)
		}
	})
}

// A status is passed on as it is, and the pool learns of those that speak
// against the server.
func TestStatus(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, s *site) {
		for i, tc := range []struct {
			code  codes.Code
			class balance.Class
		}{
			{codes.NotFound, balance.OK},
			{codes.Unavailable, balance.StatusError},
			{codes.Internal, balance.StatusError},
			{codes.PermissionDenied, balance.OK},
		} {
			_, err := s.client.UnaryCall(ctx, &pb.SimpleRequest{ResponseStatus: &pb.EchoStatus{Code: int32(tc.code), Message: "why é"}})
			if st := status.Convert(err); st.Code() != tc.code || st.Message() != "why é" {
				t.Errorf("status %v; want %v", st, tc.code)
			}
			if o := s.outcome(t, i+1); o.Class != tc.class {
				t.Errorf("%v: outcome %+v; want %v", tc.code, o, tc.class)
			}
		}
	})
}

func TestClientStream(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, s *site) {
		stream, err := s.client.StreamingInputCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			if err := stream.Send(&pb.StreamingInputCallRequest{Payload: payload(10_000)}); err != nil {
				t.Fatal(err)
			}
		}
		if r, err := stream.CloseAndRecv(); err != nil || r.AggregatedPayloadSize != 1_000_000 {
			t.Errorf("got %v, %v", r, err)
		}
	})
}

func TestServerStream(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, s *site) {
		req := &pb.StreamingOutputCallRequest{}
		for range 100 {
			req.ResponseParameters = append(req.ResponseParameters, &pb.ResponseParameters{Size: 10_000})
		}
		stream, err := s.client.StreamingOutputCall(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for {
			r, err := stream.Recv()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			n += len(r.Payload.Body)
		}
		if n != 1_000_000 {
			t.Errorf("got %d bytes", n)
		}
	})
}

// Each message is answered before the next is sent: nothing is held back.
func TestBothWays(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, s *site) {
		stream, err := s.client.FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 50 {
			if err := stream.Send(&pb.StreamingOutputCallRequest{Payload: payload(i)}); err != nil {
				t.Fatal(err)
			}
			r, err := stream.Recv()
			if err != nil || len(r.GetPayload().GetBody()) != i {
				t.Fatalf("message %d: %v, %v", i, r, err)
			}
		}
		stream.CloseSend()
		if _, err := stream.Recv(); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
	})
}

// A client that cancels a call cancels it on the server, and the server is not
// to blame.
func TestCancel(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, s *site) {
		ctx, cancel := context.WithCancel(ctx)
		stream, err := s.client.StreamingOutputCall(ctx, &pb.StreamingOutputCallRequest{ResponseParameters: []*pb.ResponseParameters{{Size: 10}, {Size: -1}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		cancel()
		select {
		case err := <-s.service.left:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("the server's context ended with %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Error("the server was not told")
		}
		if o := s.outcome(t, 1); o.Class.ServerFault() {
			t.Errorf("outcome %+v", o)
		}
	})
}

// Many calls at once share few connections.
func TestMany(t *testing.T) {
	s := start(t, true, false)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 20 {
				if _, err := s.client.UnaryCall(ctx, &pb.SimpleRequest{Payload: payload(1000)}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
