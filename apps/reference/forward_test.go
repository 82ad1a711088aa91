package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// lockedBuffer is a buffer that several connections write to.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func TestForward(t *testing.T) {
	ended, stop := context.WithCancel(t.Context())
	stop()
	require.NoError(t, run(ended, []string{"forward"}, "", nil, io.Discard), "for an app that nobody connects to")
	assert.ErrorContains(t, run(t.Context(), []string{"forward", "none", "1"}, "", nil, io.Discard), "none")
	host, err := engineHost(t.Context())
	require.NoError(t, err)
	_, err = netip.ParseAddr(host)
	require.NoError(t, err)

	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := free.Addr().String()
	require.NoError(t, free.Close())
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	var log lockedBuffer
	done := make(chan error)
	port := strconv.Itoa(free.Addr().(*net.TCPAddr).Port)
	go func() { done <- run(ctx, []string{"forward", port, "1"}, "", nil, &log) }() // nothing listens at the host's port 1
	require.Eventually(t, func() bool {
		client, err := net.Dial("tcp", address)
		if err != nil {
			return false // not yet
		}
		defer client.Close()
		_, err = client.Read(make([]byte, 1))
		return err != nil
	}, time.Minute, 10*time.Millisecond)
	stop()
	require.NoError(t, <-done)
	assert.Contains(t, log.String(), "Fix: start the app on the host")
}
