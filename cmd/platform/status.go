package main

import (
	"fmt"
	"slices"
	"text/tabwriter"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"trading-platform/stack"
)

func statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how a stack's containers are doing; exit code 1 unless all are healthy",
		Args:  cobra.NoArgs,
	}
	name := stackFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		w, src, err := source(*name)
		if err != nil {
			return err
		}
		p, _, err := stack.Resolve(src)
		if p == nil {
			return err
		}
		engine, err := w.Engine(cmd.Context(), *name)
		if err != nil {
			return err
		}
		defer func() { _ = engine.Close() }()
		all, err := engine.ContainerList(cmd.Context(), client.ContainerListOptions{All: true})
		if err != nil {
			return err
		}
		t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "SERVICE\tCONTAINER\tHEALTH\tSTATE\tURL")
		urls, bad := p.URLs(), 0
		for _, s := range p.Services {
			for _, container := range s.Containers {
				health, state := "missing", "run: make up STACK="+*name
				for _, c := range all.Items {
					if !slices.Contains(c.Names, "/"+container) {
						continue
					}
					health, state = "none", c.Status
					inspect, err := engine.ContainerInspect(cmd.Context(), c.ID, client.ContainerInspectOptions{})
					if err == nil && inspect.Container.State != nil && inspect.Container.State.Health != nil {
						health = string(inspect.Container.State.Health.Status)
					}
					if c.State != "running" {
						health = "stopped"
					}
				}
				if health != "healthy" {
					bad++
				}
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", s.Name, container, health, state, urls[s.Name])
			}
		}
		if err := t.Flush(); err != nil {
			return err
		}
		if bad > 0 {
			return exitCode(1)
		}
		return nil
	}
	return cmd
}
