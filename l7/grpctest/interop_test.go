// SPDX-License-Identifier: Apache-2.0

package grpctest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	pb "google.golang.org/grpc/interop/grpc_testing"
)

// cases returns those of gRPC's interop test suite that need no account with a cloud.
// They end the process if they fail.
func cases() map[string]func(context.Context, *grpc.ClientConn) {
	return map[string]func(context.Context, *grpc.ClientConn){
		"empty_unary":                 with(interop.DoEmptyUnaryCall),
		"large_unary":                 with(interop.DoLargeUnaryCall),
		"client_streaming":            with(interop.DoClientStreaming),
		"server_streaming":            with(interop.DoServerStreaming),
		"ping_pong":                   with(interop.DoPingPong),
		"empty_stream":                with(interop.DoEmptyStream),
		"timeout_on_sleeping_server":  with(interop.DoTimeoutOnSleepingServer),
		"cancel_after_begin":          with(interop.DoCancelAfterBegin),
		"cancel_after_first_response": with(interop.DoCancelAfterFirstResponse),
		"status_code_and_message":     with(interop.DoStatusCodeAndMessage),
		"special_status_message":      with(interop.DoSpecialStatusMessage),
		"custom_metadata":             with(interop.DoCustomMetadata),
		"unimplemented_method":        func(ctx context.Context, cc *grpc.ClientConn) { interop.DoUnimplementedMethod(ctx, cc) },
		"unimplemented_service": func(ctx context.Context, cc *grpc.ClientConn) {
			interop.DoUnimplementedService(ctx, pb.NewUnimplementedServiceClient(cc))
		},
		"rpc_soak": func(ctx context.Context, cc *grpc.ClientConn) {
			interop.DoSoakTest(ctx, soak(func() (*grpc.ClientConn, func()) { return cc, func() {} }))
		},
		"channel_soak": func(ctx context.Context, cc *grpc.ClientConn) {
			interop.DoSoakTest(ctx, soak(func() (*grpc.ClientConn, func()) {
				own, err := dial()
				if err != nil {
					panic(err)
				}
				return own, func() { own.Close() }
			}))
		},
	}
}

func with(do func(context.Context, pb.TestServiceClient, ...grpc.CallOption)) func(context.Context, *grpc.ClientConn) {
	return func(ctx context.Context, cc *grpc.ClientConn) { do(ctx, pb.NewTestServiceClient(cc)) }
}

func soak(channel func() (*grpc.ClientConn, func())) interop.SoakTestConfig {
	return interop.SoakTestConfig{RequestSize: 271_828, ResponseSize: 314_159, PerIterationMaxAcceptableLatency: 10 * time.Second,
		OverallTimeout: 20 * time.Second, NumWorkers: 4, Iterations: 20, ChannelForTest: channel}
}

// dial connects to what the environment of a case says.
func dial() (*grpc.ClientConn, error) {
	creds := insecure.NewCredentials()
	if ca := os.Getenv("INTEROP_CA"); ca != "" {
		b, err := os.ReadFile(ca)
		if err != nil {
			return nil, err
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(b)
		creds = credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: "grpc.test"})
	}
	return grpc.NewClient(os.Getenv("INTEROP_ADDR"), grpc.WithTransportCredentials(creds))
}

// TestInteropCase is a case in a process of its own.
func TestInteropCase(t *testing.T) {
	do := cases()[os.Getenv("INTEROP_CASE")]
	if do == nil {
		t.Skip("TestInterop runs it")
	}
	cc, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	do(ctx, cc)
}

// canceledLate is what cancel_after_begin says if the reply has come before the client
// noticed its own cancel: then it takes either. Without a proxy that is one call of 70 000 on
// a busy machine.
const canceledLate = "CloseAndRecv() got error code 0, want 1"

// runCase runs TestInteropCase and returns what it said.
func runCase(name, addr, ca string) ([]byte, error) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestInteropCase$", "-test.v")
	cmd.Env = append(os.Environ(), "INTEROP_CASE="+name, "INTEROP_ADDR="+addr, "INTEROP_CA="+ca, "GRPC_GO_LOG_SEVERITY_LEVEL=error")
	return cmd.CombinedOutput()
}

// interopServer starts a server of the suite.
func interopServer(t *testing.T, cert *tls.Certificate) net.Addr {
	var opts []grpc.ServerOption
	if cert != nil {
		opts = append(opts, grpc.Creds(credentials.NewServerTLSFromCert(cert)))
	}
	srv := grpc.NewServer(opts...)
	pb.RegisterTestServiceServer(srv, interop.NewTestServer())
	ln := listen(t)
	go srv.Serve(ln)
	t.Cleanup(srv.Stop)
	return ln.Addr()
}

// freeAddr returns an address that nothing listens on.
func freeAddr(t *testing.T) string {
	ln := listen(t)
	defer ln.Close()
	return ln.Addr().String()
}

// waitListening waits until addr takes connections: the cases do not wait for that.
func waitListening(t *testing.T, addr string) {
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// TestInterop runs all cases through the proxy of examples/proxy: from clients in
// plain text and over TLS, to servers in plain text and over TLS.
func TestInterop(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "proxy")
	build := exec.Command("go", "build", "-o", bin, "./examples/proxy")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	cert, _ := certificate(t)
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for file, b := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert.Certificate[0]}, keyFile: {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, to := range []string{"h2c", "https"} {
		args := []string{"-check-interval", "0", "-cert", certFile, "-key", keyFile}
		if to == "h2c" {
			args = append(args, "-to", "h2c://"+interopServer(t, nil).String())
		} else {
			args = append(args, "-insecure", "-to", "https://"+interopServer(t, &cert).String())
		}
		plain, secure := freeAddr(t), freeAddr(t)
		var log bytes.Buffer
		proxy := exec.Command(bin, append(args, "-http", plain, "-tls", secure)...)
		proxy.Stderr, proxy.Stdout = &log, &log
		if err := proxy.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			proxy.Process.Signal(syscall.SIGTERM)
			proxy.Wait()
			if t.Failed() {
				t.Logf("the proxy: %s", &log)
			}
		})
		waitListening(t, plain)
		waitListening(t, secure)
		for _, front := range []struct{ name, addr, ca string }{{"http", plain, ""}, {"tls", secure, certFile}} {
			for name := range cases() {
				t.Run(fmt.Sprintf("%s to %s/%s", front.name, to, name), func(t *testing.T) {
					out, err := runCase(name, front.addr, front.ca)
					for range 2 {
						if !bytes.Contains(out, []byte(canceledLate)) {
							break
						}
						out, err = runCase(name, front.addr, front.ca)
					}
					if err != nil || !bytes.Contains(out, []byte("--- PASS: TestInteropCase")) {
						t.Errorf("%v\n%s", err, out)
					}
				})
			}
		}
	}
}
