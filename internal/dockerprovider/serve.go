package dockerprovider

import (
	"fmt"
	"io"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	"github.com/pulumi/pulumi/sdk/v3/go/common/util/rpcutil"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"google.golang.org/grpc"
)

// Serve serves a new provider on a port of its own, writes the port to out, which is
// how Pulumi learns it, and returns when the server ends. engineAddress is the Pulumi
// engine's, for progress messages; it may be empty.
func Serve(engineAddress string, out io.Writer) error {
	provider := New()
	if err := provider.Attach(engineAddress); err != nil {
		return err
	}
	handle, err := rpcutil.ServeWithOptions(rpcutil.ServeOptions{
		Init: func(server *grpc.Server) error {
			pulumirpc.RegisterResourceProviderServer(server, plugin.NewProviderServer(provider))
			return nil
		},
	})
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out, handle.Port); err != nil {
		return fmt.Errorf("telling Pulumi the port: %w", err)
	}
	return <-handle.Done
}
