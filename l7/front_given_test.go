// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A foreign handler gets the front's own request if that has no body. The exchange goes
// by what the client sent, whatever becomes of that request.

func echoBody(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %d %v", b, r.ContentLength, err)
}

// A filter outside reads the body of the client, not the one that it makes itself.
func TestGivenRequestIsFiltered(t *testing.T) {
	onBoth(t, func(*site) http.Handler {
		return HandlerFunc(func(x *Exchange) {
			x.FilterBody(func(r io.Reader) io.Reader { return io.MultiReader(r, strings.NewReader("more")) })
			Serve(http.HandlerFunc(echoBody), x)
		})
	}, func(s *site) {
		for range 2 {
			require.Equal(s, "more 0 <nil>", s.get("/").body)
		}
	})
}

// The same where a handler outside has read the body to its end and does not know it.
func TestGivenRequestHasBeenRead(t *testing.T) {
	onBoth(t, func(*site) http.Handler {
		return &BufferBody{AtLeast: 5, Next: http.HandlerFunc(echoBody)}
	}, func(s *site) {
		for _, n := range []int{4, 5, 6, 100} {
			body := strings.Repeat("x", n)
			a, err := s.ask(s.client, "/", body)
			require.NoError(s, err)
			require.Equal(s, fmt.Sprint(body, " ", n, " <nil>"), a.body)
		}
	})
}

// Middleware may put a context into the request in place. Its end is not the client's.
func TestGivenRequestGetsAContext(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		s.origin("10.0.1.1:80", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		return &Capture{Next: middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			gone := w.(http.CloseNotifier).CloseNotify() //lint:ignore SA1019 gin asks for it
			ctx, cancel := context.WithCancel(r.Context())
			*r = *r.WithContext(ctx)
			after := w.(http.CloseNotifier).CloseNotify() //lint:ignore SA1019 gin asks for it
			defer time.AfterFunc(time.Second, cancel).Stop()
			next.ServeHTTP(w, r)
			time.Sleep(time.Second)
			select {
			case <-gone:
				s.Error("the client is said to have gone")
			case <-after:
				s.Error("the client is said to have gone, once the context was changed")
			default:
			}
		})(s.proxy("10.0.1.1:80"))}
	}, func(s *site) {
		a := s.get("/")
		require.Equal(s, http.StatusBadGateway, a.StatusCode, a.body)
	})
}

// The request is the handler's: it may change it while a handler inside works on a clone.
func TestGivenRequestIsChangedMeanwhile(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		s.origin("10.0.1.1:80", func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			fmt.Fprint(w, r.Method, r.URL, r.Header["X-A"])
		})
		proxy := s.proxy("10.0.1.1:80")
		proxy.Timeout = time.Minute
		with := middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			late, end := context.WithTimeout(r.Context(), time.Second/2)
			defer end()
			unread, _ := io.Pipe()
			posts := r.Clone(late)
			posts.Method, posts.Body, posts.ContentLength = "POST", unread, -1 // its reading is stopped
			var wg sync.WaitGroup
			wg.Go(func() { next.ServeHTTP(discarding{}, posts) })
			gets, inside := r.Clone(late), r.Clone(r.Context())
			wg.Go(func() { next.ServeHTTP(discarding{}, gets) })
			wg.Go(func() { next.ServeHTTP(w, inside) })
			ctx, cancel := context.WithCancel(r.Context())
			cancel()
			for range 1000 {
				time.Sleep(time.Millisecond)
				r.Method, r.Host, r.ContentLength, r.ProtoMajor, r.Close = "PUT", "other", 7, 3, true
				r.Body, r.Trailer, r.RequestURI, r.RemoteAddr = io.NopCloser(strings.NewReader("changed")), http.Header{"A": {"b"}}, "/other", ""
				r.URL, r.TLS = nil, nil
				*r = *r.WithContext(ctx)
			}
			wg.Wait()
		})
		return &Capture{Next: &Wrap{With: with, Next: proxy}}
	}, func(s *site) {
		for i := range 3 {
			a := s.get(fmt.Sprint("/", i), "X-A", fmt.Sprint(i))
			require.Equal(s, fmt.Sprintf("GET/%d [%d]", i, i), a.body, "%v", a.Response)
		}
	})
}

// discarding is a ResponseWriter that loses what is written to it.
type discarding struct{}

func (discarding) Header() http.Header         { return make(http.Header) }
func (discarding) Write(p []byte) (int, error) { return len(p), nil }
func (discarding) WriteHeader(int)             {}

type editFunc func(x *Exchange, r *Reply)

func (f editFunc) EditReply(x *Exchange, r *Reply) { f(x, r) }

// What an editor asks for is the request as it came, with the exchange's edits.
func TestGivenRequestIsThatOfEditors(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		return HandlerFunc(func(x *Exchange) {
			x.Header.Set("X-Edit", "1")
			x.OnReply(editFunc(func(x *Exchange, r *Reply) {
				q := x.Request()
				r.Header.Set("X-Asked", fmt.Sprint(q.Method, q.URL, q.Header["X-A"], q.Header["X-Edit"], q.ContentLength, q.Context().Err(), x.Context().Err()))
			}))
			Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				ctx, cancel := context.WithCancel(r.Context())
				cancel()
				*r = *r.WithContext(ctx)
				r.Method, r.URL.Path, r.Header, r.ContentLength = "PUT", "/changed", nil, 7
			}), x)
		})
	}, func(s *site) {
		a := s.get("/a?b", "X-A", "1")
		require.Equal(s, "GET/a?b [1] [1] 0 <nil> <nil>", a.Header.Get("X-Asked"))
	})
}

// A foreign handler may go on with the exchange around it, and another one inside of that
// gets a request as the first one did.
func TestGivenRequestIsAskedForAgain(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		return HandlerFunc(func(x *Exchange) {
			Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.URL.Path = "/changed"
				*r = *r.WithContext(context.WithValue(r.Context(), foreignKey{}, "changed"))
				Serve(HandlerFunc(func(x *Exchange) {
					Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						<-time.After(time.Second)
						assert.NoError(s, r.Context().Err())
						fmt.Fprint(w, r.URL, r.Header["X-A"], r.Context().Value(foreignKey{}))
					}), x)
				}), x)
			}), x)
		})
	}, func(s *site) {
		for range 2 {
			require.Equal(s, "/a/b?c [1] <nil>", s.get("/a/b?c", "X-A", "1").body)
		}
	})
}

// The request of a handler around belongs to that, and it may use it while another handler
// inside filters the body.
func TestRequestAroundIsNotChanged(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		filter := HandlerFunc(func(x *Exchange) {
			x.FilterBody(func(r io.Reader) io.Reader { return r })
			Serve(http.HandlerFunc(echoBody), x)
		})
		return &Capture{Next: middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			var wg sync.WaitGroup
			mine := http.Header{"X-Mine": {"1"}}
			r.Trailer = mine
			inside := *r
			wg.Go(func() { next.ServeHTTP(w, &inside) })
			for range 1000 {
				assert.Equal(s, "7", r.Header.Get("Content-Length"))
				*r = *r.WithContext(r.Context())
			}
			wg.Wait()
			assert.Equal(s, "7", r.Header.Get("Content-Length"))
			assert.Equal(s, mine, r.Trailer)
		})(filter)}
	}, func(s *site) {
		a, err := s.ask(s.client, "/", "content")
		require.NoError(s, err)
		require.Equal(s, "content -1 <nil>", a.body)
	})
}

// A handler two levels inside that goes on when the exchange has ended, and the connection
// serves others, does not look at that exchange any more.
func TestLateWritesLookAtNoOtherExchange(t *testing.T) {
	onBoth(t, func(s *site) http.Handler {
		s.origin("10.0.1.1:80", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusContinue)
			_, _ = io.Copy(w, r.Body)
		})
		inside := []http.Handler{s.proxy("10.0.1.1:80"), &Capture{Next: http.HandlerFunc(echoBody)}}
		leaves := make(chan struct{}, 1)
		middle := middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			leaves <- struct{}{}
			for _, next := range append(inside, next) {
				for range 200 {
					time.Sleep(time.Millisecond)
					q := r.Clone(context.WithoutCancel(r.Context()))
					q.Body, q.ContentLength = io.NopCloser(strings.NewReader("again")), 5
					next.ServeHTTP(w, q)
				}
			}
		})(&Capture{Next: http.HandlerFunc(echoBody)})
		var late sync.WaitGroup
		s.Cleanup(late.Wait)
		outer := middleware(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.URL.Path != "/late" {
				next.ServeHTTP(w, r)
				return
			}
			late.Go(func() { (&Capture{Next: middle}).ServeHTTP(discarding{}, r) })
			<-leaves
		})(http.HandlerFunc(echoBody))
		return &Capture{Next: outer}
	}, func(s *site) {
		a, err := s.ask(s.client, "/late", strings.Repeat("x", 100_000))
		require.NoError(s, err)
		require.Empty(s, a.body)
		for range 600 {
			time.Sleep(time.Millisecond)
			a, err := s.ask(s.client, "/", "mine")
			require.NoError(s, err)
			require.Equal(s, "mine 4 <nil>", a.body)
		}
	})
}
