// SPDX-License-Identifier: Apache-2.0

package samebytes

//lint:file-ignore SA1019 what is deprecated is used, too

import (
	"errors"
	"expvar"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/http/pprof"
	"net/url"
	"regexp"
	"strings"
	"testing/fstest"
	"time"

	coder "github.com/coder/websocket"
	"github.com/corazawaf/coraza/v3"
	corazahttp "github.com/corazawaf/coraza/v3/http"
	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	gorilla "github.com/gorilla/websocket"
	"github.com/klauspost/compress/gzhttp"
	"github.com/labstack/echo/v4"
	"github.com/rs/cors"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/penstock-lb/penstock/l4/l4test"
)

func fixed(h http.Handler) func(*l4test.Network) http.Handler {
	return func(*l4test.Network) http.Handler { return h }
}

func stories() []story {
	long := strings.Repeat("a line of text that compresses well\n", 400)
	return []story{
		{name: "plain", handler: fixed(plain(long)), asks: []ask{
			get("/"), get("/long"), get("/flush"), get("/trailer"), get("/204"), get("/304"), get("/early"), get("/typed"), get("/none"), get("/echo"),
			{line: "HEAD /"}, {line: "HEAD /long"}, {line: "POST /echo", body: "hello"}, {line: "POST /echo", body: long}, {line: "POST /ignore", body: long},
			{line: "POST /echo", body: "hello", fields: "Expect: 100-continue\n", only: 1}, get("/long-flush"), get("/close"), get("/length"), get("/short"),
			{line: "OPTIONS /echo"}, {line: "DELETE /echo"}, get("/full"), get("/copy"),
		}},
		{name: "panics", handler: fixed(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/late" {
				_, _ = io.WriteString(w, "half")
				_ = http.NewResponseController(w).Flush()
			}
			panic("a fault")
		})), asks: []ask{get("/late"), get("/")}, differs: "a handler that panics before its reply has begun is answered 500, and not cut off (package l7, From http.Server)"},
		{name: "ServeMux", handler: fixed(mux()), asks: []ask{get("/a/5"), get("/b"), get("/b/../c"), get("/c//d"), get("/none"), {line: "PUT /a/5"}, get("/b?x=1"), get("/host")}},
		{name: "chi", handler: fixed(withChi()), asks: []ask{
			get("/users/7"), get("/users/7/"), get("/none"), {line: "PATCH /users/7"}, get("/ping"), get("/slow"), get("/panic"), get("/zip", "Accept-Encoding: gzip"), get("/admin/x"),
		}},
		{name: "gin", handler: fixed(withGin()), asks: []ask{
			get("/users/7"), get("/json"), get("/stream"), get("/moved"), get("/none"), get("/panic"), {line: "POST /form", body: "a=1&b=2", fields: "Content-Type: application/x-www-form-urlencoded\n"}, get("/users/7/"),
		}},
		{name: "echo", handler: fixed(withEcho()), asks: []ask{get("/users/7"), get("/json"), get("/stream"), get("/none"), get("/fail"), {line: "PUT /json"}, {line: "HEAD /json"}}},
		{name: "gorilla/websocket", handler: fixed(http.HandlerFunc(serveGorilla)), asks: []ask{{line: "GET /ws", fields: asksWebSocket, raw: framesWebSocket, until: closeWebSocket}, get("/ws")}},
		{name: "coder/websocket", handler: fixed(http.HandlerFunc(serveCoder)), asks: []ask{{line: "GET /ws", fields: asksWebSocket, raw: framesWebSocket, until: closeWebSocket}, get("/ws")},
			differs: "a field Upgrade is not sent over HTTP/2 (RFC 9113, section 8.2.2)", over: 2},
		{name: "grpc.Server", handler: fixed(withGRPC()), asks: []ask{
			{line: "POST /grpc.health.v1.Health/Check", fields: "Content-Type: application/grpc\nTe: trailers\n", body: "\x00\x00\x00\x00\x00", only: 2},
			{line: "POST /grpc.health.v1.Health/None", fields: "Content-Type: application/grpc\nTe: trailers\n", body: "\x00\x00\x00\x00\x00", only: 2},
			{line: "POST /grpc.health.v1.Health/Check", fields: "Content-Type: application/grpc\nTe: trailers\n", body: "\x00\x00\x00\x00\x04\x0a\x02no", only: 2},
			get("/"),
		}},
		{name: "rs/cors", handler: fixed(cors.New(cors.Options{AllowedOrigins: []string{"https://b.test"}, AllowCredentials: true}).Handler(plain(long))), asks: []ask{
			get("/", "Origin: https://b.test"), get("/", "Origin: https://c.test"), get("/"),
			{line: "OPTIONS /", fields: "Origin: https://b.test\nAccess-Control-Request-Method: GET\n"},
			{line: "OPTIONS /", fields: "Origin: https://c.test\nAccess-Control-Request-Method: PUT\n"},
		}},
		{name: "otelhttp", handler: fixed(otelhttp.NewHandler(plain(long), "test")), asks: []ask{get("/"), get("/long"), get("/flush"), {line: "POST /echo", body: "hello"}, get("/trailer"), get("/204"), get("/early")}},
		{name: "gzhttp", handler: fixed(gzhttp.GzipHandler(plain(long))), asks: []ask{
			get("/long", "Accept-Encoding: gzip"), get("/", "Accept-Encoding: gzip"), get("/long"), get("/flush", "Accept-Encoding: gzip"), {line: "HEAD /long", fields: "Accept-Encoding: gzip\n"}, get("/304", "Accept-Encoding: gzip"),
		}},
		{name: "coraza", handler: fixed(withCoraza(long)), asks: []ask{
			get("/"), get("/long"), get("/?id=1;drop"), get("/", "X-Attack: yes"), {line: "POST /echo", body: "hello"}, {line: "POST /echo", body: "an attack"}, {line: "POST /echo", body: long},
			{line: "HEAD /long"}, get("/204"), get("/secret"),
		}},
		{name: "pprof", handler: fixed(withPprof()), asks: []ask{get("/debug/pprof/cmdline"), get("/debug/pprof/symbol?0x0"), get("/debug/pprof/none")}, vary: []*regexp.Regexp{regexp.MustCompile(`num_symbols: \d+`)}},
		{name: "pprof of the heap", handler: fixed(withPprof()), asks: []ask{get("/debug/pprof/"), get("/debug/pprof/goroutine?debug=1")}, headsOnly: true},
		{name: "expvar", handler: fixed(expvar.Handler()), asks: []ask{get("/debug/vars")}, headsOnly: true},
		{name: "FileServer", handler: fixed(http.FileServerFS(files(long))), asks: filesAsked, vary: []*regexp.Regexp{regexp.MustCompile(`[0-9a-f]{60}`)}},
		{name: "FileServer of real files", handler: fixed(http.FileServer(http.Dir("."))), asks: []ask{get("/doc.go"), get("/doc.go", "Range: bytes=3-9"), {line: "HEAD /doc.go"}, get("/go.sum"), get("/go.sum", "Range: bytes=-5000")}},
		{name: "TimeoutHandler", handler: fixed(http.TimeoutHandler(plain(long), 300*time.Millisecond, "too late")), asks: []ask{get("/"), get("/wait"), get("/long"), get("/204"), {line: "POST /echo", body: "hello"}, {line: "HEAD /"}}},
		{name: "MaxBytesHandler", handler: fixed(http.MaxBytesHandler(plain(long), 10)), asks: []ask{{line: "POST /echo", body: "hello"}, {line: "POST /echo", body: long}},
			differs: "http.MaxBytesReader has http.Server end the connection, which only its own writer lets it (package l7, From http.Server)", over: 1},
		{name: "ReverseProxy", handler: func(n *l4test.Network) http.Handler { return reverseProxy(n, plain(long)) }, asks: []ask{
			get("/"), get("/long"), get("/flush"), get("/trailer"), {line: "POST /echo", body: "hello"}, {line: "POST /echo", body: long}, {line: "HEAD /long"}, get("/204"), get("/304"), get("/early"),
			get("/none-such-server"), {line: "GET /ws", fields: asksWebSocket, raw: framesWebSocket, until: closeWebSocket},
		}},
		{name: "h2c", handler: fixed(h2c.NewHandler(plain(long), new(http2.Server))), asks: []ask{
			get("/"), get("/long"), {line: "POST /echo", body: "hello"}, get("/trailer"),
		}},
		{name: "h2c by upgrade", handler: fixed(h2c.NewHandler(plain(long), new(http2.Server))), asks: []ask{
			{line: "GET /none", fields: "Connection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAAQAAP__\n", raw: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", only: 1},
		}},
		{name: "TLS of the listener", secure: true, handler: fixed(plain(long)), asks: []ask{get("/"), get("/tls"), get("/long"), {line: "POST /echo", body: long}, get("/trailer")}},
		{name: "hijacked", handler: fixed(http.HandlerFunc(hijack)), asks: []ask{{line: "GET /", fields: "Connection: upgrade\nUpgrade: own\n", raw: "early bytes\n"}, {line: "GET /busy", fields: "Connection: upgrade\nUpgrade: own\n", raw: "x\n"}}},
	}
}

// withCoraza is a firewall that looks at targets, fields and both bodies.
func withCoraza(long string) http.Handler {
	waf, err := coraza.NewWAF(coraza.NewWAFConfig().WithDirectives(`
		SecRuleEngine On
		SecRequestBodyAccess On
		SecResponseBodyAccess On
		SecResponseBodyMimeType text/plain
		SecRule ARGS "@contains drop" "id:1,phase:1,deny,status:403"
		SecRule REQUEST_HEADERS:X-Attack "@streq yes" "id:2,phase:1,deny,status:406"
		SecAction "id:3,phase:1,pass,nolog,ctl:forceRequestBodyVariable=On"
		SecRule REQUEST_BODY "@contains attack" "id:4,phase:2,deny,status:403"
		SecRule RESPONSE_BODY "@contains secret" "id:5,phase:4,deny,status:500"`))
	if err != nil {
		panic(err)
	}
	next := plain(long)
	return corazahttp.WrapHandler(waf, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/secret" {
			w.Header().Set("Content-Type", "text/plain")
			_, _ = io.WriteString(w, "a secret")
			return
		}
		next.ServeHTTP(w, r)
	}))
}

// plain does what handlers do by themselves.
func plain(long string) http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(w, r)
			return
		}
		w.Header().Add("X-B", "2")
		w.Header().Add("X-A", "1")
		w.Header().Add("X-A", "3")
		http.SetCookie(w, &http.Cookie{Name: "c", Value: "v", HttpOnly: true})
		_, _ = io.WriteString(w, "<html>hello")
	})
	m.HandleFunc("/long", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, long) })
	m.HandleFunc("/flush", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "one")
		_ = http.NewResponseController(w).Flush()
		_, _ = io.WriteString(w, "two")
	})
	m.HandleFunc("/long-flush", func(w http.ResponseWriter, r *http.Request) {
		for range 3 {
			_, _ = io.WriteString(w, long)
			_ = http.NewResponseController(w).Flush()
		}
	})
	m.HandleFunc("/trailer", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		_, _ = io.WriteString(w, "body")
		w.Header().Set("X-Sum", "7")
		w.Header().Set(http.TrailerPrefix+"X-Late", "8")
	})
	m.HandleFunc("/204", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) })
	m.HandleFunc("/304", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"x"`)
		w.WriteHeader(304)
	})
	m.HandleFunc("/early", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</a.css>; rel=preload")
		w.WriteHeader(103)
		w.Header().Set("X-Final", "yes")
		_, _ = io.WriteString(w, "final")
	})
	m.HandleFunc("/typed", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header()["x-raw-name"] = []string{"kept"}
		_, _ = io.WriteString(w, "{}")
	})
	m.HandleFunc("/none", func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Content-Type"], w.Header()["Date"] = nil, nil
		_, _ = io.WriteString(w, "untyped")
	})
	m.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		fmt.Fprintln(w, r.Method, r.RequestURI, r.Host, r.Proto, r.ContentLength, r.TransferEncoding, r.Close, r.URL, err)
		_ = r.Header.Write(w)
		_, _ = w.Write(b)
	})
	m.HandleFunc("/ignore", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "not read") })
	m.HandleFunc("/close", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Close", "soon")
		_, _ = io.WriteString(w, "bye")
	})
	m.HandleFunc("/length", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "5")
		_, err := io.WriteString(w, "123")
		_, err2 := io.WriteString(w, "45")
		if err != nil || err2 != nil {
			panic("length")
		}
	})
	m.HandleFunc("/short", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "5")
		_, err := io.WriteString(w, "123456")
		if !errors.Is(err, http.ErrContentLength) {
			panic("no error")
		}
		_, _ = io.WriteString(w, "12345")
	})
	m.HandleFunc("/full", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, http.NewResponseController(w).EnableFullDuplex())
	})
	m.HandleFunc("/copy", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, strings.NewReader(long)) })
	m.HandleFunc("/wait", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	m.HandleFunc("/tls", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.TLS != nil, r.TLS.NegotiatedProtocol, r.TLS.ServerName, r.Proto)
	})
	return m
}

func mux() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /a/{id}", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.PathValue("id"), r.Pattern) })
	m.HandleFunc("/b/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL) })
	m.Handle("/c/", http.StripPrefix("/c", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL) })))
	m.HandleFunc("a.test/host", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host) })
	return m
}

func withChi() http.Handler {
	r := chi.NewRouter()
	r.Use(middleware.RealIP, middleware.CleanPath, middleware.Recoverer, middleware.Heartbeat("/ping"), middleware.Timeout(100*time.Millisecond), middleware.Compress(5))
	middleware.DefaultLogger = middleware.RequestLogger(&middleware.DefaultLogFormatter{Logger: log.New(io.Discard, "", 0)})
	r.Use(middleware.Logger, middleware.GetHead, middleware.NoCache)
	r.Get("/users/{id}", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, chi.URLParam(r, "id")) })
	r.Get("/slow", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	r.Get("/panic", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) })
	r.Get("/zip", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, strings.Repeat("x", 5000))
	})
	r.Mount("/admin", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) }))
	return r
}

func withGin() http.Handler {
	gin.SetMode(gin.ReleaseMode)
	gin.DefaultWriter, gin.DefaultErrorWriter = io.Discard, io.Discard
	r := gin.Default()
	r.GET("/users/:id", func(c *gin.Context) { c.String(200, c.Param("id")) })
	r.GET("/json", func(c *gin.Context) { c.JSON(201, gin.H{"a": 1}) })
	r.GET("/stream", func(c *gin.Context) {
		n := 0
		c.Stream(func(w io.Writer) bool { n++; fmt.Fprint(w, n); return n < 3 })
	})
	r.GET("/moved", func(c *gin.Context) { c.Redirect(302, "/json") })
	r.GET("/panic", func(c *gin.Context) { panic("fault") })
	r.POST("/form", func(c *gin.Context) { c.String(200, c.PostForm("a")+c.PostForm("b")) })
	return r
}

func withEcho() http.Handler {
	e := echo.New()
	e.HideBanner = true
	e.Logger.SetOutput(io.Discard)
	e.GET("/users/:id", func(c echo.Context) error { return c.String(200, c.Param("id")) })
	e.GET("/json", func(c echo.Context) error { return c.JSON(200, map[string]int{"a": 1}) })
	e.GET("/stream", func(c echo.Context) error { return c.Stream(200, "text/plain", strings.NewReader("stream")) })
	e.GET("/fail", func(c echo.Context) error { return errors.New("fault") })
	return e
}

func withGRPC() http.Handler {
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, health.NewServer())
	return s
}

func withPprof() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("/debug/pprof/", pprof.Index)
	m.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	m.HandleFunc("/debug/pprof/profile", pprof.Profile)
	m.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	return m
}

func files(long string) fstest.MapFS {
	at := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	return fstest.MapFS{
		"a.txt": {Data: []byte(long), ModTime: at}, "dir/b.html": {Data: []byte("<p>b"), ModTime: at}, "empty": {ModTime: at}, "dir/index.html": {Data: []byte("index"), ModTime: at}, "list/c": {Data: []byte("c"), ModTime: at},
	}
}

var filesAsked = []ask{
	get("/a.txt"), {line: "HEAD /a.txt"}, get("/a.txt", "Range: bytes=0-9"), get("/a.txt", "Range: bytes=-7"), get("/a.txt", "Range: bytes=5-"), get("/a.txt", "Range: bytes=0-3,10-20"),
	get("/a.txt", "Range: bytes=999999-"), get("/a.txt", "Range: lines=1"), get("/a.txt", "If-Modified-Since: Wed, 01 Jan 2020 00:00:00 GMT"), get("/a.txt", "If-Unmodified-Since: Wed, 01 Jan 2010 00:00:00 GMT"),
	get("/dir"), get("/dir/"), get("/dir/index.html"), get("/list/"), get("/empty"), get("/empty", "Range: bytes=0-0"), get("/none"), {line: "POST /a.txt", body: "x"}, get("/a.txt", "Range: bytes=0-9", `If-Range: "x"`),
}

// reverseProxy has a server of its own, on a network of its own.
func reverseProxy(n *l4test.Network, h http.Handler) http.Handler {
	ln, err := n.Listen("tcp", "10.0.0.1:80")
	if err != nil {
		panic(err)
	}
	m := http.NewServeMux()
	m.Handle("/", h)
	m.HandleFunc("/ws", serveGorilla)
	back := &http.Server{Handler: m}
	go func() { _ = back.Serve(ln) }()
	to, _ := url.Parse("http://10.0.0.1")
	return &httputil.ReverseProxy{
		ErrorLog: log.New(io.Discard, "", 0),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetXForwarded()
			if r.SetURL(to); r.In.URL.Path == "/none-such-server" {
				r.Out.URL.Host = "10.0.0.2"
			}
		},
		Transport: &http.Transport{DialContext: n.DialContext},
	}
}

const asksWebSocket = "Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n"

// A text and a close, with a mask of zeros.
const closeWebSocket = "\x88\x02\x03\xe8"

const framesWebSocket = "\x81\x85\x00\x00\x00\x00hello\x88\x82\x00\x00\x00\x00\x03\xe8"

func serveGorilla(w http.ResponseWriter, r *http.Request) {
	c, err := (&gorilla.Upgrader{}).Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer c.Close()
	for {
		kind, p, err := c.ReadMessage()
		if err != nil || c.WriteMessage(kind, p) != nil {
			return
		}
	}
}

func serveCoder(w http.ResponseWriter, r *http.Request) {
	c, err := coder.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer func() { _ = c.CloseNow() }()
	for {
		kind, p, err := c.Read(r.Context())
		if err != nil || c.Write(r.Context(), kind, p) != nil {
			return
		}
	}
}

func hijack(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/busy" {
		w.Header().Set("X-A", "1")
		w.WriteHeader(200)
		_, _ = io.WriteString(w, "begun")
	}
	c, brw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		fmt.Fprint(w, err)
		return
	}
	defer c.Close()
	line, err := brw.ReadString('\n')
	fmt.Fprintf(brw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: own\r\n\r\n%T %q %v\n", c, line, err)
	_ = brw.Flush()
	_, _ = w.Write(nil)
}
