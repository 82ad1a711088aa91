package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"time"

	"github.com/inetaf/tcpproxy"
)

// forward runs in place of an app that runs on the engine's host: it passes connections at the first port on to the second port there.
// Without ports it only waits, because nobody connects to the app.
func forward(ctx context.Context, ports []string, out io.Writer) error {
	if len(ports) != 2 {
		<-ctx.Done()
		return nil
	}
	host, err := engineHost(ctx)
	if err != nil {
		return err
	}
	app := tcpproxy.To(net.JoinHostPort(host, ports[1]))
	app.OnDialError = func(client net.Conn, err error) {
		_ = client.Close()
		fmt.Fprintf(out, "%v. Fix: start the app on the host, and let it listen on all addresses, not on 127.0.0.1 alone\n", err)
	}
	var proxy tcpproxy.Proxy
	proxy.AddRoute(":"+ports[0], app)
	if err := proxy.Start(); err != nil {
		return err
	}
	<-ctx.Done()
	return proxy.Close()
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
	address, err := strconv.ParseUint(string(gateway[1]), 16, 32)
	return netip.AddrFrom4([4]byte(binary.NativeEndian.AppendUint32(nil, uint32(address)))).String(), err
}
