// SPDX-License-Identifier: Apache-2.0

// Package compress compresses replies with zstd, brotli or gzip, as [Replies], and
// decompresses the bodies of requests, as [Requests]; both are handlers of package l7.
//
//	gateway := &l7.Server{Handler: &compress.Replies{Next: &compress.Requests{Next: proxy}}}
//
// They are native on every front: nothing is handed over to net/http.
//
// # Which replies
//
// A reply is compressed if the client accepts a coding that is used (RFC 9110, section
// 12.5.3), if its Content-Type is one of [Replies.Types], and if it is not known to be
// shorter than [Replies.MinBytes]. A client that refuses the reply as it is (identity;q=0)
// gets short ones compressed as well; where there is no coding for it, or the type does not
// suit, the reply goes out as it is (section 12.4.1). A client that sends no Accept-Encoding
// gets nothing compressed.
//
// Left alone are replies that have a Content-Encoding, so that nothing is compressed
// twice; Cache-Control: no-transform, of the reply or of the request; parts (206,
// Content-Range); 204, 205 and 304; replies whose fields have a digest of their bytes, or announce one in the trailer;
// requests to upgrade, and CONNECT. The head of a reply to HEAD is that of a GET.
//
// Servers see Accept-Encoding, and may compress by themselves. An l7.EditHeader with
// l7.DelField inside of Replies leaves the work to the gateway.
//
// # What changes
//
// Content-Encoding and Vary are added, Content-Length and Accept-Ranges removed. Vary is
// also added to replies that another client would have got compressed. A strong ETag
// becomes weak, since the bytes differ from client to client. The client sends it back as
// it has got it; its strong form is added to If-None-Match for servers that compare tags as
// strings, and a 304 has the tag that the client knows. If-Match and If-Range compare
// strongly (RFC 9110, sections 13.1.1 and 13.1.5): no weak tag fits there, so a client that
// changes what it has read by If-Match has to read it with Accept-Encoding: identity.
// Trailers pass, also a digest that no field Trailer has announced: it is that of the body
// before it was compressed.
//
// # Streams
//
// A reply of unknown length is flushed each time that bytes have come from the server, so
// server-sent events arrive one by one. A reply of known length is not flushed before its
// end: its bytes leave as the blocks of the compressor fill. A reply that is cut has no end
// in its coding either, after what came before.
//
// # Memory
//
// The window, how far back a compressor looks, is 256 KiB for zstd and brotli (RFC 9659 lets
// clients of zstd refuse more than 8 MiB) and 32 KiB for gzip. In all a reply takes about
// 2.0 MiB with zstd, 3.1 MiB with brotli and 1.1 MiB with gzip at the default levels, and at
// most 5 MiB at the highest that [Replies] has (measured by BenchmarkMemory), for as long as
// it is being sent. [Replies.Max] bounds how many there are. A compressor is used again for
// another reply once its own has come to its end.
//
// A request body takes what its coding asks its reader to remember: 32 KiB with gzip, up to
// 8 MiB with zstd (more is refused), and up to 16 MiB with brotli, for as long as it is being
// read. [Requests.Max] bounds how many there are, MaxBytes and MaxRatio what may come out.
//
// # Cost
//
// What is done beside compressing does not show: by BenchmarkReplies, the filter takes 0.99
// to 1.02 of the CPU of the compressor alone (brotli up to 1.11, as it cuts blocks otherwise
// when a long body comes in pieces). A request whose reply goes out as it is costs one
// allocation, and one whose body has no coding costs Requests none.
//
// # Secrets
//
// The length of a compressed reply tells something about what is in it. If a page over TLS
// has both a secret, such as a token against forged requests, and text that an attacker can
// choose, such as what was searched for, then whoever can have a browser ask for it many
// times and sees the lengths can guess the secret, piece by piece (BREACH). Replies cannot
// see which these pages are. Put it around routes without secrets in their bodies only; or
// mask the secret with new random bytes in every reply; or make its cookies SameSite, so
// that other sites cannot ask with them.
//
// # Dependencies
//
// It is a module of its own. Besides penstock it brings github.com/klauspost/compress (zstd,
// gzip) and github.com/andybalholm/brotli, which depend on no other module.
package compress
