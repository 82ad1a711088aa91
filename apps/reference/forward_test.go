package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestForward(t *testing.T) {
	listen := func() *net.TCPListener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		return l.(*net.TCPListener)
	}
	app, front := listen(), listen()
	go func() { // answers only when the question has ended
		conn, err := app.Accept()
		if err == nil {
			text, _ := io.ReadAll(conn)
			_, _ = conn.Write(append([]byte("you said "), text...))
			_ = conn.Close()
		}
	}()
	ctx, stop := context.WithCancel(t.Context())
	var log bytes.Buffer
	ended := make(chan error)
	go func() { ended <- forward(ctx, front, app.Addr().String(), &log) }()
	ask := func() string {
		conn, err := net.Dial("tcp", front.Addr().String())
		require.NoError(t, err)
		_, _ = conn.Write([]byte("hello"))
		_ = conn.(*net.TCPConn).CloseWrite()
		answer, _ := io.ReadAll(conn)
		return string(answer)
	}
	assert.Equal(t, "you said hello", ask())
	require.NoError(t, app.Close())
	assert.Empty(t, ask(), "the app is not running")
	stop()
	require.NoError(t, <-ended)
	assert.Contains(t, log.String(), "Fix: start the app on the host")
}

func TestForwardToHost(t *testing.T) {
	ended, stop := context.WithCancel(t.Context())
	stop()
	require.NoError(t, run(ended, []string{"forward"}, "", nil, io.Discard), "for an app that nobody connects to")
	assert.ErrorContains(t, run(t.Context(), []string{"forward", "none", "1"}, "", nil, io.Discard), "none")
	host, err := engineHost(t.Context())
	require.NoError(t, err)
	_, err = netip.ParseAddr(host)
	assert.NoError(t, err)
}
