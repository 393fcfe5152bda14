// SPDX-License-Identifier: Apache-2.0

// Package grpctest runs gRPC clients and servers of grpc-go through l7: all four kinds of
// calls, over h2c and over TLS, and the cases of gRPC's interop suite through the command
// of examples/proxy. It is a module of its own, so that users of penstock do not depend
// on gRPC.
package grpctest
