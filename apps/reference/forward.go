package main

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"regexp"
	"sync"
	"time"
)

// forwardToHost runs in place of an app that runs on the engine's host: it passes connections at the first port on to the second port
// there. Without ports it only waits, because nobody connects to the app.
func forwardToHost(ctx context.Context, ports []string, out io.Writer) error {
	if len(ports) != 2 {
		<-ctx.Done()
		return nil
	}
	host, err := engineHost(ctx)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", ":"+ports[0])
	if err != nil {
		return err
	}
	target := net.JoinHostPort(host, ports[1])
	fmt.Fprintf(out, "forwarding port %s to %s\n", ports[0], target)
	return forward(ctx, listener, target, out)
}

// forward passes every connection on to a target, until the context ends.
func forward(ctx context.Context, listener net.Listener, target string, out io.Writer) error {
	defer context.AfterFunc(ctx, func() { _ = listener.Close() })()
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			return nil
		} else if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			app, err := net.Dial("tcp", target)
			if err != nil {
				fmt.Fprintf(out, "%v. Fix: start the app on the host, and let it listen on all addresses, not on 127.0.0.1 alone\n", err)
				return
			}
			defer app.Close()
			var both sync.WaitGroup
			for to, from := range map[*net.TCPConn]net.Conn{conn.(*net.TCPConn): app, app.(*net.TCPConn): conn} {
				both.Go(func() {
					_, _ = io.Copy(to, from)
					_ = to.CloseWrite()
				})
			}
			both.Wait()
		}()
	}
}

// defaultRoute finds the gateway of the default route in /proc/net/route, in hex and in the byte order of the machine.
var defaultRoute = regexp.MustCompile(`(?m)^\w+\t00000000\t([0-9A-F]{8})\t`)

// engineHost returns the address of the host that the engine runs on. Docker Desktop has a name for it; with an engine on Linux it is the
// gateway of the container's network.
func engineHost(ctx context.Context) (string, error) {
	asking, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if found, err := net.DefaultResolver.LookupHost(asking, "host.docker.internal"); err == nil {
		return found[0], nil
	}
	routes, err := os.ReadFile("/proc/net/route")
	if err != nil {
		return "", err
	}
	gateway := defaultRoute.FindSubmatch(routes)
	if gateway == nil {
		return "", errors.New("this container has no default route, so it cannot reach the host")
	}
	var b [4]byte
	if _, err := hex.Decode(b[:], gateway[1]); err != nil {
		return "", err
	}
	return netip.AddrFrom4([4]byte(binary.NativeEndian.AppendUint32(nil, binary.BigEndian.Uint32(b[:])))).String(), nil
}
