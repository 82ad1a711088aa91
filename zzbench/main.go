package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	rpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"
)

func must(err error) { if err != nil { panic(err) } }

func marshal(m map[string]any) *structpb.Struct {
	s, err := plugin.MarshalProperties(resource.NewPropertyMapFromMap(m), plugin.MarshalOptions{KeepUnknowns: true, KeepSecrets: true})
	must(err)
	return s
}

func main() {
	inputs := map[string]any{
	"name": "stack_db", "image": "sha256:one", "command": []any{"run", "it"},
	"healthcheck": map[string]any{"tests": []any{"CMD", "probe"}, "interval": "90s", "timeout": "5s", "retries": 3},
	"networksAdvanced": []any{
		map[string]any{"name": "one", "aliases": []any{"db", "sql"}, "ipv4Address": "10.9.0.2"},
		map[string]any{"name": "two", "aliases": []any{"db"}},
	},
	"ports":     []any{map[string]any{"internal": 5432, "external": 5433, "ip": "127.0.0.1"}},
	"volumes":   []any{map[string]any{"volumeName": "data", "containerPath": "/data"}, map[string]any{"hostPath": "/h", "containerPath": "/c", "readOnly": true}},
	"uploads":   []any{map[string]any{"file": "/etc/db.conf", "content": strings.Repeat("x", 2000)}},
	"labels":    []any{map[string]any{"label": "a", "value": "1"}, map[string]any{"label": "b", "value": "2"}},
	"logDriver": "json-file", "logOpts": map[string]any{"max-size": "1m", "max-file": "2"},
	"restart": "unless-stopped", "memory": 64, "memorySwap": 64, "wait": true, "waitTimeout": 30,
	"destroyGraceSeconds": 60, "mustRun": true,
	}
	envs := []any{}
	for i := range 30 { envs = append(envs, fmt.Sprintf("VAR_%d=value %d", i, i)) }
	inputs["envs"] = resource.MakeSecret(resource.NewPropertyValue(envs))
	state := map[string]any{}
	for k, v := range inputs { state[k] = v }
	state["__offlineDocker"] = "4.11.2"; state["imageId"] = "sha256:one"
	in, st := marshal(inputs), marshal(state)
	ctx := context.Background()
	for range 5 {
		began := time.Now()
		c := exec.Command(os.Args[1], "127.0.0.1:1")
		c.Stderr = os.Stderr
		out, err := c.StdoutPipe(); must(err)
		must(c.Start())
		line, err := bufio.NewReader(out).ReadString('\n'); must(err)
		started := time.Since(began)
		conn, err := grpc.NewClient("127.0.0.1:"+strings.TrimSpace(line), grpc.WithTransportCredentials(insecure.NewCredentials())); must(err)
		p := rpc.NewResourceProviderClient(conn)
		addr := "127.0.0.1:1"
		_, err = p.Handshake(ctx, &rpc.ProviderHandshakeRequest{EngineAddress: addr}); must(err)
		_, err = p.CheckConfig(ctx, &rpc.CheckRequest{Urn: "urn:pulumi:s::p::pulumi:providers:docker::docker", News: marshal(map[string]any{"version": "4.11.2"})}); must(err)
		_, err = p.Configure(ctx, &rpc.ConfigureRequest{AcceptSecrets: true, SendsOldInputs: true, SendsOldInputsToDelete: true, Args: marshal(map[string]any{"version": "4.11.2"})}); must(err)
		configured := time.Since(began)
		urn := "urn:pulumi:s::p::docker:index/container:Container::db"
		time1 := func(n int, f func()) time.Duration { b := time.Now(); for range n { f() }; return time.Since(b) / time.Duration(n) }
		check := time1(200, func() { r, err := p.Check(ctx, &rpc.CheckRequest{Urn: urn, Olds: in, News: in}); must(err); if len(r.Failures) > 0 { panic(r.Failures) } })
		diff := time1(200, func() { r, err := p.Diff(ctx, &rpc.DiffRequest{Urn: urn, Id: "x", Olds: st, OldInputs: in, News: in}); must(err); if len(r.Diffs) > 0 { panic(r.Diffs) } })
		create := time1(200, func() { _, err := p.Create(ctx, &rpc.CreateRequest{Urn: urn, Properties: in, Preview: true}); must(err) })
		fmt.Println("start", started.Round(time.Millisecond), "configured", configured.Round(time.Millisecond), "check", check.Round(time.Microsecond), "diff", diff.Round(time.Microsecond), "create preview", create.Round(time.Microsecond))
		_ = c.Process.Kill(); _ = c.Wait()
	}
}
