package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"strconv"

	"github.com/moby/moby/client"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/spf13/cobra"

	engines "trading-platform/engine"
	"trading-platform/observe"
	"trading-platform/operate"
	"trading-platform/plan"
	"trading-platform/review"
)

// toolInput is what a coding assistant passes to the tools. The SDK makes their schemas of it.
type toolInput struct {
	Services []string `json:"services,omitempty" jsonschema:"of logs and restart: names of services; all if there are none"`
	Tail     int      `json:"tail,omitempty" jsonschema:"of logs: number of lines from the end of each log; 100 by default"`
	Ref      string   `json:"ref,omitempty" jsonschema:"of diff: git revision to compare this checkout with, such as main"`
}

func mcpCommand() *cobra.Command {
	var write bool
	cmd := stackCommand(&cobra.Command{
		Use: "mcp", Short: "Serve a stack to a coding assistant, over the Model Context Protocol on standard input and output", Args: cobra.NoArgs,
	}, func(t target, _ []string) error {
		server := mcp.NewServer(&mcp.Implementation{Name: "trading-platform", Version: t.cmd.Root().Version}, nil)
		for _, tool := range t.tools() {
			if tool.writes && !write {
				continue
			}
			// Each call reads the settings and asks the engine anew. An error is the assistant's to read.
			about := &mcp.Tool{Name: tool.name, Description: tool.description, Annotations: &mcp.ToolAnnotations{ReadOnlyHint: !tool.writes}}
			mcp.AddTool(server, about, func(ctx context.Context, _ *mcp.CallToolRequest, in toolInput) (*mcp.CallToolResult, any, error) {
				var out bytes.Buffer
				err := t.withPlan(func(engine *client.Client, here engines.Ref, p *plan.Plan) error {
					services, err := operate.Select(engine, here, p, in.Services)
					if err != nil {
						return err
					}
					return tool.run(ctx, services, in, &out)
				})
				return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: out.String()}}}, nil, err
			})
		}
		return server.Run(t.cmd.Context(), &mcp.StdioTransport{})
	})
	cmd.Flags().BoolVar(&write, "write", false, "let the assistant restart services; without it, no tool changes anything")
	return cmd
}

type tool struct {
	name, description string
	writes            bool
	run               func(ctx context.Context, s *operate.Services, in toolInput, out *bytes.Buffer) error
}

// tools are what an assistant can do with the stack. None returns a secret of the plan; logs are as the services wrote them.
func (t target) tools() []tool {
	return []tool{
		{"status", "How the containers of stack " + t.stack + " are doing: health, restarts, and how they differ from the plan", false,
			func(ctx context.Context, s *operate.Services, _ toolInput, out *bytes.Buffer) error {
				statuses, err := observe.Statuses(ctx, s.Engine, s.Plan)
				for _, one := range statuses {
					fmt.Fprintf(out, "%s: %s, %s, restarts: %d, drift: %s\n", one.Container, one.Health, cmp.Or(one.State, "not up: make up STACK="+t.stack), one.Restarts, cmp.Or(one.Drift, "none"))
				}
				return err
			}},
		{"logs", "The last lines that services have written, in the order of time", false,
			func(ctx context.Context, s *operate.Services, in toolInput, out *bytes.Buffer) error {
				return s.Logs(ctx, operate.LogOptions{Tail: strconv.Itoa(cmp.Or(max(0, in.Tail), 100))}, out)
			}},
		{"plan", "What stack " + t.stack + " consists of, as JSON; secrets are left out", false,
			func(_ context.Context, s *operate.Services, _ toolInput, out *bytes.Buffer) error {
				return s.Plan.JSON(out)
			}},
		{"diff", "What changes in the plan of stack " + t.stack + " from a git revision to this checkout; it runs the program of that revision", false,
			func(ctx context.Context, _ *operate.Services, in toolInput, out *bytes.Buffer) error {
				report, err := review.Diff(ctx, t.Root, in.Ref, t.stack)
				return cmp.Or(err, report.Markdown(out))
			}},
		{"restart", "Restart services, and wait until they are healthy", true,
			func(ctx context.Context, s *operate.Services, _ toolInput, out *bytes.Buffer) error {
				fmt.Fprintf(out, "restarted %d containers, and they are healthy", len(s.Containers))
				return s.Restart(ctx)
			}},
	}
}
