// SPDX-License-Identifier: Apache-2.0

// # From http.Server
//
// Fields and methods of [Server] with the same name as in http.Server do the
// same, except as its comment says. The rest maps as follows:
//
//	ReadTimeout                   BodyTimeout, of each wait; ReadHeaderTimeout bounds the head
//	WriteTimeout                  SendTimeout, of each wait; Proxy.Timeout bounds the whole of an exchange
//	ErrorLog                      Logger; slog.NewLogLogger and slog.New convert between the two
//	ConnState                     Server.Open and Server.Stats have the numbers; ConnContext is called for a new
//	                              connection, OnDone of the end of each exchange
//	DisableGeneralOptionsHandler  always on: OPTIONS * goes to the Handler
//	TLSNextProto                  Protocols; for other protocols, put an l4.Router before the Server
//	HTTP2.MaxConcurrentStreams    MaxStreams
//	HTTP2.SendPingTimeout         built in: a client that is silent for long is sent a PING
//	HTTP2, the rest               fixed
//
// A tree of handlers that is wrong fails in Serve, except inside an [http.ServeMux], which
// does not list its handlers, and inside a func: call the Check of those before you serve, or
// use [NewRouter]. One that is wrong answers its requests with 500.
//
// In addition, MaxConns bounds the number of open connections, and [Server.Open]
// returns it.
//
// A handler that is not native sends the same bytes as under an http.Server, except
// that one which panics before its reply has begun is answered 500 and not cut off,
// that [http.MaxBytesReader] cannot end the connection, that a Content-Length outside the
// grammar (RFC 9110, section 8.6) is not sent, that HTTP/1.0 gets no interim replies
// (section 15.2), that control characters in values become spaces (section 5.5), that
// what [io.Copy] writes over TCP is not sent after 512 bytes and then in chunks, and that
// Connection and Upgrade are not sent over HTTP/2 (RFC 9113, section 8.2.2). A target in
// absolute form is path and query in Request.RequestURI. Closing the body of a request does
// not read it: what is left of it is read when the handler has returned.
//
// # From httputil.ReverseProxy
//
// [To] is the short form, a [Proxy] with middleware the long one:
//
//	NewSingleHostReverseProxy   To(url): adds the path of the URL, and sends its host, where NewSingleHostReverseProxy keeps the client's
//	Rewrite, Director           Rewrite for path, query, host and method; EditHeader for fields; or a HandlerFunc that
//	                            changes the Exchange and calls Serve
//	ProxyRequest.SetURL         Proxy.Pool chooses the server; Rewrite.AddPrefix and Rewrite.Host the rest
//	ProxyRequest.SetXForwarded  Proxy.Forward, on by default; fields from the client are dropped unless TrustForwarded trusts them
//	Transport                   Upstream: TLS, Dial, Protocols, Reuse and the limits of connections
//	ModifyResponse              Exchange.OnReply; EditHeader for fields, Reply.FilterBody for the body. An editor also sees
//	                            the gateway's own replies, such as a 502: Reply.Local tells them
//	ModifyResponse, an error    Reply.Refuse: the client gets 502 by the error page, or what that makes of it: the example
//	                            of Reply.Refuse (NotFound) puts a page in place of a server's 404, and keeps the status
//	ErrorHandler                ErrorPages.Make, which gets the status and the cause and may choose another status;
//	                            ErrorPages.Pages for fixed ones
//	FlushInterval               not needed: received bytes are sent before the next read waits
//	BufferPool                  built in
//	ErrorLog                    Proxy.Logger, or Record.Err in OnDone
//	panic(ErrAbortHandler)      the same: the connection is cut, or the stream reset
//	a context that ends         under an upgrade resets both connections, where ReverseProxy closes them: neither side
//	                            takes a part for the whole
//
// # Middleware of net/http
//
// A handler of this package inside middleware of net/http continues the exchange of the
// handlers around it; see [Handler]. [Wrap] puts such middleware into a tree at about the
// cost of a native handler. [RefusedError] and the other errors of this package are found in
// [Record].Err by errors.As.
//
// Under an http.Server, a trailer of a request goes on without the names that the header
// has too, since such middleware may have set them. A field that it removes from the header may
// come back in a trailer: [DelField] removes both. A field that it sets is not forwarded
// if the client's Connection names it.
package l7
