package provider

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

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
			pulumirpc.RegisterResourceProviderServer(server, detailedServer{plugin.NewProviderServer(provider)})
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

// detailedServer completes what the SDK's server says of a diff: that it is detailed,
// and which whole properties it is about. Pulumi's display shows nested properties
// only then.
type detailedServer struct {
	pulumirpc.ResourceProviderServer
}

// Diff is the SDK's, completed.
func (s detailedServer) Diff(ctx context.Context, req *pulumirpc.DiffRequest) (*pulumirpc.DiffResponse, error) {
	diff, err := s.ResourceProviderServer.Diff(ctx, req)
	if err != nil {
		return nil, err
	}
	diff.HasDetailedDiff = len(diff.GetDetailedDiff()) > 0
	diff.Diffs, diff.Replaces = wholeProperties(diff.GetDiffs()), wholeProperties(diff.GetReplaces())
	return diff, nil
}

// wholeProperties cuts paths down to the property that they lead into.
func wholeProperties(paths []string) []string {
	var names []string
	for _, path := range paths {
		name, _, _ := strings.Cut(path, ".")
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
