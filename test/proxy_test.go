//go:build live || official

package test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// proxy stands between the platform command and the engine. It can be cut off, and can make the engine's clock another one.
type proxy struct {
	t      *testing.T
	socket string
	skew   atomic.Int64                              // nanoseconds that the engine's clock seems to be ahead
	wrap   func(http.RoundTripper) http.RoundTripper // what else is between the two; nil for nothing
	mu     sync.Mutex
	server *http.Server
}

func newProxy(t *testing.T, wrap func(http.RoundTripper) http.RoundTripper) *proxy {
	t.Helper()
	p := &proxy{t: t, socket: filepath.Join(t.TempDir(), "engine.sock"), wrap: wrap}
	p.listen()
	t.Cleanup(p.cut)
	return p
}

// host is the engine's address by way of the proxy.
func (p *proxy) host() string { return "unix://" + p.socket }

// listen lets connections through.
func (p *proxy) listen() {
	p.t.Helper()
	address, ok := strings.CutPrefix(engine.DaemonHost(), "unix://")
	require.True(p.t, ok, "the proxy speaks to an engine at a socket, not at %s", engine.DaemonHost())
	var transport http.RoundTripper = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", address)
	}}
	if p.wrap != nil {
		transport = p.wrap(transport)
	}
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "engine"
			query := r.Out.URL.Query()
			for _, name := range []string{"since", "until"} {
				if at, err := strconv.ParseFloat(query.Get(name), 64); err == nil {
					query.Set(name, fmt.Sprintf("%.9f", at-time.Duration(p.skew.Load()).Seconds()))
					r.Out.URL.RawQuery = query.Encode()
				}
			}
		},
		Transport:     transport,
		FlushInterval: -1,
		ModifyResponse: func(r *http.Response) error {
			if strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
				r.Body = &skewed{lines: bufio.NewReader(r.Body), body: r.Body, skew: &p.skew}
				r.Header.Del("Content-Length")
				r.ContentLength = -1
			}
			return nil
		},
		ErrorLog: log.New(io.Discard, "", 0), // a cut is what the test is about
	}
	listener, err := net.Listen("unix", p.socket)
	require.NoError(p.t, err)
	server := &http.Server{Handler: forward, ReadHeaderTimeout: time.Minute}
	p.mu.Lock()
	p.server = server
	p.mu.Unlock()
	go func() { _ = server.Serve(listener) }()
}

// cut ends all connections, and lets no new one through.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.server.Close()
}

// skewed is an answer of the engine's with its times moved, a line at a time.
type skewed struct {
	lines *bufio.Reader
	body  io.Closer
	skew  *atomic.Int64
	rest  bytes.Buffer
}

var (
	stampText   = regexp.MustCompile(`"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"`)
	stampNumber = regexp.MustCompile(`"(time|timeNano|Created)":(\d+)`)
)

func (s *skewed) Read(p []byte) (int, error) {
	if s.rest.Len() == 0 {
		line, err := s.lines.ReadBytes('\n')
		if len(line) == 0 {
			return 0, err
		}
		by := time.Duration(s.skew.Load())
		line = stampText.ReplaceAllFunc(line, func(found []byte) []byte {
			at, err := time.Parse(`"`+time.RFC3339Nano+`"`, string(found))
			if err != nil || at.Year() == 1 { // the zero time stands for never
				return found
			}
			return []byte(at.Add(by).Format(`"` + time.RFC3339Nano + `"`))
		})
		line = stampNumber.ReplaceAllFunc(line, func(found []byte) []byte {
			parts := stampNumber.FindSubmatch(found)
			n, err := strconv.ParseInt(string(parts[2]), 10, 64)
			if err != nil {
				return found
			}
			if string(parts[1]) == "timeNano" {
				n += int64(by)
			} else {
				n += int64(by.Seconds())
			}
			return fmt.Appendf(nil, `"%s":%d`, parts[1], n)
		})
		s.rest.Write(line)
	}
	return s.rest.Read(p)
}

func (s *skewed) Close() error { return s.body.Close() }
