// SPDX-License-Identifier: Apache-2.0

// # From http.Server
//
// What [Server] has under the same name does the same, but for what its comment
// says. What stands in for the rest:
//
//	ReadTimeout                   BodyTimeout, of each wait; ReadHeaderTimeout bounds the head
//	WriteTimeout                  SendTimeout, of each wait; Proxy.Timeout bounds the whole of an exchange
//	ErrorLog                      Logger; slog.NewLogLogger and slog.New lead from one kind to the other
//	ConnState                     Server.Open and Server.Stats are the numbers; ConnContext is told of a new
//	                              connection, OnDone of the end of each exchange
//	DisableGeneralOptionsHandler  is always so: OPTIONS * is the Handler's
//	TLSNextProto                  Protocols; other protocols are a matter of l4.Router before the Server
//	HTTP2.MaxConcurrentStreams    MaxStreams
//	HTTP2.SendPingTimeout         is built in: a client that is silent for long is asked
//	HTTP2, the rest               is fixed
//
// Beyond them, MaxConns bounds the connections that are open, and [Server.Open] is
// their number.
//
// # From httputil.ReverseProxy
//
// [To] is the short way, a [Proxy] with its middleware the long one:
//
//	NewSingleHostReverseProxy   To(url): with the path of the URL, and with its Host, which NewSingleHostReverseProxy keeps
//	Rewrite, Director           Rewrite for path, query, host and method; EditHeader for fields; or a HandlerFunc that
//	                            changes the Exchange and calls Serve
//	ProxyRequest.SetURL         Proxy.Pool chooses the server; Rewrite.AddPrefix and Rewrite.Host the rest
//	ProxyRequest.SetXForwarded  Proxy.Forward, which is on by default; what a client sent is dropped, TrustForwarded believes it
//	Transport                   Upstream: TLS, Dial, Protocols, Reuse and the limits of connections
//	ModifyResponse              Exchange.OnReply; EditHeader for fields, Reply.FilterBody for the body
//	ModifyResponse, an error    Reply.Refuse: the client gets 502 by the error page
//	ErrorHandler                ErrorPages.Make, which gets the status and the cause and may choose another status;
//	                            ErrorPages.Pages for fixed ones
//	FlushInterval               is not needed: what there is goes out before the next piece is waited for
//	BufferPool                  is built in
//	ErrorLog                    Proxy.Logger, or Record.Err in OnDone
//	panic(ErrAbortHandler)      the same: the connection is cut, or the stream reset
//
// # Middleware of net/http
//
// A handler of this package inside middleware of net/http goes on with the exchange
// of the handlers around; see [Handler]. [Wrap] puts such middleware into a tree at about the
// cost of a native handler. [RefusedError] and the other errors of this package are
// found in [Record].Err by errors.As.
package l7
