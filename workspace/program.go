package workspace

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/moby/client"
	"github.com/pulumi/pulumi/sdk/v3/go/common/util/rpcutil"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	engines "trading-platform/engine"
	"trading-platform/program"
	"trading-platform/settings"
)

// languageHost is a Pulumi language host that runs the program in this process. Pulumi's own
// one for Go starts Go's tool, which starts the program: 0.5 s later, without an edit.
type languageHost struct {
	pulumirpc.UnimplementedLanguageRuntimeServer
	run     *run
	environ []string
}

// serveProgram serves a languageHost on a loopback port until stop is called. The CLI
// takes its address in the flag --client.
func (r *run) serveProgram(environ []string) (address string, stop func(), err error) {
	cancel := make(chan bool)
	server, err := rpcutil.ServeWithOptions(rpcutil.ServeOptions{
		Cancel: cancel,
		Init: func(s *grpc.Server) error {
			pulumirpc.RegisterLanguageRuntimeServer(s, &languageHost{run: r, environ: environ})
			return nil
		},
	})
	if err != nil {
		return "", nil, fmt.Errorf("serving the program to pulumi: %w", err)
	}
	stop = func() {
		close(cancel)
		<-server.Done //nolint:errcheck // the run is over
	}
	return fmt.Sprintf("127.0.0.1:%d", server.Port), stop, nil
}

// GetPluginInfo is the only other method that the CLI needs: it finds the provider when the program registers it.
func (*languageHost) GetPluginInfo(context.Context, *emptypb.Empty) (*pulumirpc.PluginInfo, error) {
	return &pulumirpc.PluginInfo{}, nil
}

// Run runs the program once. To a host at --client, the CLI passes the address of its engine as the only argument.
func (h *languageHost) Run(_ context.Context, req *pulumirpc.RunRequest) (*pulumirpc.RunResponse, error) {
	if len(req.GetArgs()) != 1 {
		return nil, fmt.Errorf("pulumi passed %d arguments to the program in place of its engine's address", len(req.GetArgs()))
	}
	config, err := json.Marshal(req.GetConfig())
	if err != nil {
		return nil, err
	}
	secret, err := json.Marshal(req.GetConfigSecretKeys())
	if err != nil {
		return nil, err
	}
	// Pulumi's own host passes the config in the environment.
	environ := append(slices.Clone(h.environ), pulumi.EnvConfig+"="+string(config), pulumi.EnvConfigSecretKeys+"="+string(secret))
	// The run has identified the engine already, which takes tens of milliseconds. Closing the client ends only idle connections.
	engine := func(context.Context, settings.Docker) (*client.Client, engines.Ref, error) {
		return h.run.engine, h.run.here, nil
	}
	host := program.Host{Root: h.run.Root, Getenv: lookup(environ), Engine: engine, Export: program.Export}
	var failed error
	err = pulumi.RunErr(func(ctx *pulumi.Context) error {
		h.run.recorder.Step("running the program")
		failed = program.Run(ctx, host)
		h.run.recorder.Step("Pulumi's engine, the provider and Docker")
		if failed != nil {
			return errors.Join(failed, ctx.Log.Error(failed.Error(), nil))
		}
		return nil
	}, func(info *pulumi.RunInfo) {
		*info = pulumi.RunInfo{
			Project: req.GetProject(), Stack: req.GetStack(), Organization: req.GetOrganization(), RootDirectory: h.run.Root,
			Config: req.GetConfig(), ConfigSecretKeys: req.GetConfigSecretKeys(),
			Parallel: req.GetParallel(), DryRun: req.GetDryRun(),
			MonitorAddr: req.GetMonitorAddress(), EngineAddr: req.GetArgs()[0],
		}
	})
	response := &pulumirpc.RunResponse{Bail: failed != nil} // then the CLI has the error already
	if err != nil && failed == nil {
		response.Error = err.Error()
	}
	return response, nil
}

// lookup returns a function like os.Getenv for an environment; the last of two variables with a name counts.
func lookup(environ []string) func(string) string {
	values := map[string]string{}
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		values[name] = value
	}
	return func(name string) string { return values[name] }
}

// inProcess reports whether a command of the CLI can use the program in this process: it is about this clone, and this
// process is built from the clone's present sources. A destroy or a refresh does not run the program, but would start Go's
// tool to ask it about plugins. An installed CLI from before v3.185 does not have the flag for these two.
func (w *Workspace) inProcess(command string, args []string) bool {
	elsewhere := slices.ContainsFunc(args, func(a string) bool {
		return a == "-C" || strings.HasPrefix(a, "--cwd") || strings.HasPrefix(a, "--client")
	})
	return w.current && !elsewhere && (command == "up" || command == "preview" || !w.Installed)
}
