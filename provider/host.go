package provider

import (
	"context"
	"fmt"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// host is the Pulumi engine that runs this provider.
type host struct{ client pulumirpc.EngineClient }

func dialHost(address string) (*host, error) {
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connecting to the Pulumi engine at %s: %w", address, err)
	}
	return &host{client: pulumirpc.NewEngineClient(connection)}, nil
}

// progress shows messages beside one resource in Pulumi's display.
type progress struct {
	host *host
	urn  resource.URN
}

// status replaces the line that the display shows for the resource, while it works on it.
func (p progress) status(format string, a ...any) {
	p.log(pulumirpc.LogSeverity_INFO, true, format, a...)
}

// warn stays in the display's diagnostics.
func (p progress) warn(format string, a ...any) {
	p.log(pulumirpc.LogSeverity_WARNING, false, format, a...)
}

func (p progress) log(severity pulumirpc.LogSeverity, ephemeral bool, format string, a ...any) {
	if p.host == nil {
		return
	}
	// A message that does not arrive is no reason to fail what it is about.
	_, _ = p.host.client.Log(context.Background(), &pulumirpc.LogRequest{
		Severity: severity, Message: fmt.Sprintf(format, a...), Urn: string(p.urn), Ephemeral: ephemeral,
	})
}
