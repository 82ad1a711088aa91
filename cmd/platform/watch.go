package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"trading-platform/operate"
	"trading-platform/plan"
	"trading-platform/settings"
	"trading-platform/workspace"
)

func watchCommand() *cobra.Command {
	return serviceCommand(&cobra.Command{
		Use: "watch [service…]", Short: "Build and replace the apps whose files in sourceDir are saved, until it is interrupted",
	}, anyNumber, func(t target, s *operate.Services, _ []string) error {
		_, set, err := t.resolve()
		if err != nil {
			return err
		}
		if set.SourceDir == "" {
			return fmt.Errorf("stack %s has no checkout to watch. Fix: %s", t.stack, settings.SetCommand(t.stack, "sourceDir", "<folder>"))
		}
		if err := s.Exist(t.cmd.Context()); err != nil {
			return err
		}
		return s.Watch(t.cmd.Context(), set.SourceDir, func(services []plan.Service) error {
			return t.Run(t.cmd.Context(), "up", t.stack, workspace.Targets(services), say)
		}, say)
	})
}
