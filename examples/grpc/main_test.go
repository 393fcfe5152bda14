// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/reflection"
	reflectpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
)

// A service says who it is, or that it is unavailable.
type service struct {
	pb.UnimplementedTestServiceServer
	id     string
	health *health.Server
	server *grpc.Server
	sick   atomic.Bool
	calls  atomic.Int32
}

func (s *service) UnaryCall(context.Context, *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	s.calls.Add(1)
	if s.sick.Load() {
		return nil, status.Error(codes.Unavailable, "sick")
	}
	return &pb.SimpleResponse{ServerId: s.id}, nil
}

func (s *service) EmptyCall(context.Context, *pb.Empty) (*pb.Empty, error) {
	s.calls.Add(1)
	if s.sick.Load() {
		return nil, status.Error(codes.Unavailable, "sick")
	}
	return &pb.Empty{}, nil
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

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// start runs a gateway before n servers.
func start(t *testing.T, n int) (addr string, client *grpc.ClientConn, servers []*service) {
	g := &Gateway{Interval: 20 * time.Millisecond, Repeatable: []string{pb.TestService_UnaryCall_FullMethodName}, Services: descriptors(t)}
	for i := range n {
		s := &service{id: strconv.Itoa(i), health: health.NewServer(), server: grpc.NewServer()}
		pb.RegisterTestServiceServer(s.server, s)
		healthpb.RegisterHealthServer(s.server, s.health)
		reflection.Register(s.server)
		ln := listen(t)
		go s.server.Serve(ln)
		t.Cleanup(s.server.Stop)
		servers = append(servers, s)
		g.Servers = append(g.Servers, ln.Addr().String())
	}
	ln := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	client, err := grpc.NewClient(ln.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return ln.Addr().String(), client, servers
}

// descriptors are those of the service, with a REST path for one of its methods.
func descriptors(t *testing.T) *descriptorpb.FileDescriptorSet {
	set := new(descriptorpb.FileDescriptorSet)
	file := pb.File_grpc_testing_test_proto
	for i := range file.Imports().Len() {
		set.File = append(set.File, protodesc.ToFileDescriptorProto(file.Imports().Get(i).FileDescriptor))
	}
	own := protodesc.ToFileDescriptorProto(file)
	for _, m := range own.Service[0].Method {
		if m.GetName() == "UnaryCall" {
			m.Options = new(descriptorpb.MethodOptions)
			proto.SetExtension(m.Options, annotations.E_Http, &annotations.HttpRule{Pattern: &annotations.HttpRule_Get{Get: "/v1/who"}})
		}
	}
	own.Service = own.Service[:1]
	set.File = append(set.File, own)
	return set
}

// Calls over one connection go to all servers, and past one that its health
// service calls bad.
func TestCallsAreBalanced(t *testing.T) {
	_, client, servers := start(t, 2)
	c := pb.NewTestServiceClient(client)
	call := func() string {
		r, err := c.UnaryCall(t.Context(), &pb.SimpleRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return r.ServerId
	}
	for range 100 {
		call()
	}
	for _, s := range servers {
		if n := s.calls.Load(); n < 30 {
			t.Errorf("server %s got %d of 100 calls", s.id, n)
		}
	}
	servers[0].health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	for end := time.Now().Add(10 * time.Second); ; {
		only := true
		for range 10 {
			only = only && call() == "1"
		}
		if only {
			break
		}
		if time.Now().After(end) {
			t.Fatal("a server that is NOT_SERVING still gets calls")
		}
	}
}

// A method that may run twice goes to another server when one is UNAVAILABLE;
// others are told so. What was not sent is sent elsewhere in any case.
func TestCallsAreRetried(t *testing.T) {
	_, client, servers := start(t, 2)
	c := pb.NewTestServiceClient(client)
	servers[0].sick.Store(true)
	unavailable := 0
	for range 20 {
		if r, err := c.UnaryCall(t.Context(), &pb.SimpleRequest{}); err != nil || r.ServerId != "1" {
			t.Fatalf("%v, %v", r, err)
		}
		if _, err := c.EmptyCall(t.Context(), &pb.Empty{}); status.Code(err) == codes.Unavailable {
			unavailable++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	servers[0].sick.Store(false)
	if unavailable == 0 {
		t.Error("a method that may not run twice was retried")
	}
	go servers[0].server.GracefulStop() // GOAWAY, then nothing listens
	for range 500 {
		if _, err := c.EmptyCall(t.Context(), &pb.Empty{}); err != nil {
			t.Fatalf("with one server gone: %v", err)
		}
	}
}

func TestStreamsGoBothWays(t *testing.T) {
	_, client, _ := start(t, 2)
	stream, err := pb.NewTestServiceClient(client).FullDuplexCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if err := stream.Send(&pb.StreamingOutputCallRequest{Payload: &pb.Payload{Body: make([]byte, i*1000)}}); err != nil {
			t.Fatal(err)
		}
		r, err := stream.Recv()
		if err != nil || len(r.GetPayload().GetBody()) != i*1000 {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	stream.CloseSend()
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func TestReflectionGoesThrough(t *testing.T) {
	_, client, _ := start(t, 1)
	stream, err := reflectpb.NewServerReflectionClient(client).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectpb.ServerReflectionRequest{MessageRequest: &reflectpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	r, err := stream.Recv()
	if err != nil || !strings.Contains(r.GetListServicesResponse().String(), "grpc.testing.TestService") {
		t.Errorf("%v, %v", r, err)
	}
	stream.CloseSend()
}

// ask makes a request over HTTP/1.1.
func ask(t *testing.T, method, url, kind string, body []byte) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
		req.Header.Set("Connect-Protocol-Version", "1") // tells Connect from REST
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, b
}

// Clients that do not speak gRPC are understood: REST, Connect and gRPC-Web.
func TestOtherProtocolsAreTranslated(t *testing.T) {
	addr, _, _ := start(t, 1)
	method := "http://" + addr + pb.TestService_UnaryCall_FullMethodName
	if res, b := ask(t, "GET", "http://"+addr+"/v1/who", "", nil); res.StatusCode != 200 || !strings.Contains(string(b), `"serverId":"0"`) {
		t.Errorf("REST: %v, %s", res.Status, b)
	}
	if res, b := ask(t, "POST", method, "application/json", []byte("{}")); res.StatusCode != 200 || !strings.Contains(string(b), `"serverId":"0"`) {
		t.Errorf("Connect: %v, %s", res.Status, b)
	}
	res, b := ask(t, "POST", method, "application/grpc-web+proto", make([]byte, 5)) // an empty message
	if res.StatusCode != 200 || len(b) < 5 {
		t.Fatalf("gRPC-Web: %v, %q", res.Status, b)
	}
	n := binary.BigEndian.Uint32(b[1:])
	var r pb.SimpleResponse
	if err := proto.Unmarshal(b[5:5+n], &r); err != nil || r.ServerId != "0" {
		t.Errorf("gRPC-Web: %v, %v", &r, err)
	}
	if rest := string(b[5+n:]); !strings.HasPrefix(rest, "\x80") || !strings.Contains(strings.ToLower(rest), "grpc-status: 0") {
		t.Errorf("gRPC-Web ends with %q", rest)
	}
	// What fails, fails in the client's own words.
	if res, b := ask(t, "POST", "http://"+addr+"/grpc.testing.TestService/UnimplementedCall", "application/json", []byte("{}")); res.StatusCode != 501 || !strings.Contains(string(b), `"unimplemented"`) {
		t.Errorf("Connect: %v, %s", res.Status, b)
	}
}

func TestRun(t *testing.T) {
	b, err := proto.Marshal(descriptors(t))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "api.binpb")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, &Gateway{Servers: []string{"127.0.0.1:1"}}, "127.0.0.1:0", file); err != nil {
		t.Error(err)
	}
}
