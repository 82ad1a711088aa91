package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"trading-platform/backup"
	"trading-platform/stack"
	"trading-platform/workspace"
)

// openData opens the stack's engine and settings for a command that handles data. A stack with
// a fault is refused: its volumes may be others than those that the settings seem to name.
func openData(ctx context.Context, name string) (s *backup.Stack, closeEngine func(), err error) {
	w, src, err := source(name)
	if err != nil {
		return nil, nil, err
	}
	p, _, err := stack.Resolve(src)
	if err != nil {
		return nil, nil, err
	}
	engine, err := w.Engine(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	return &backup.Stack{
		Engine: engine, Plan: p, Say: say,
		Lock:       w.StackFile(name) + ".data-lock",
		SetVolumes: func(volumes map[string]string) error { return w.SetConfig(name, "volumes", volumes) },
		Up:         func(ctx context.Context) error { return w.Up(ctx, name, nil, say) },
	}, func() { _ = engine.Close() }, nil
}

// dataCommands are the commands that handle a stack's data.
func dataCommands() []*cobra.Command {
	return []*cobra.Command{backupCommand(), restoreCommand(), upgradeCommand(), purgeCommand()}
}

func backupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backup [file]",
		Short: "Save the data of a running stack in one file",
		Long: `Save the data of a running stack in one file: PostgreSQL's roles and databases as
pg_dump makes them, Redis' snapshot, and an archive of each other volume, with checksums.

The stack keeps running; the containers that write to an archived volume are paused
while it is copied. The file holds every password that the database knows, and only its
owner can read it. It is named <stack>-<time>.backup.zip unless a name is given.`,
		Args: cobra.MaximumNArgs(1),
	}
	name := stackFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, done, err := openData(cmd.Context(), *name)
		if err != nil {
			return err
		}
		defer done()
		file := *name + "-" + time.Now().UTC().Format("20060102T150405Z") + ".backup.zip"
		if len(args) > 0 {
			file = args[0]
		}
		if err := s.Backup(cmd.Context(), file); err != nil {
			return err
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), file)
		return err
	}
	return cmd
}

func restoreCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restore file",
		Short: "Put the data of a backup in the place of a stack's own, and bring the stack up",
		Long: `Put the data of a backup in the place of a stack's own, and bring the stack up.

The whole file is checked first, then restored into new volumes, and only when all of
it is there does the stack change over to them. The volumes of before stay.`,
		Args: cobra.ExactArgs(1),
	}
	name := stackFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		file, err := backup.Open(args[0])
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }()
		w, err := here()
		if err != nil {
			return err
		}
		if err := w.Init(cmd.Context(), *name, workspace.InitOptions{}, say); err != nil {
			return err
		}
		s, done, err := openData(cmd.Context(), *name)
		if err != nil {
			return err
		}
		defer done()
		return s.Restore(cmd.Context(), file)
	}
	return cmd
}

func upgradeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Move PostgreSQL's data to the major version of the stack's image",
		Long: `Move PostgreSQL's data to the major version of the stack's image, which images.postgres
sets. The data is copied from a server of the old version into a new volume, and only when
all of it is there does the stack change over to it. The volume of before stays.`,
		Args: cobra.NoArgs,
	}
	name := stackFlag(cmd)
	from := cmd.Flags().String("from", "", "image of the version that made the data (default: that of the stack's container, else postgres:<version>)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, done, err := openData(cmd.Context(), *name)
		if err != nil {
			return err
		}
		defer done()
		return s.Upgrade(cmd.Context(), *from)
	}
	return cmd
}

func purgeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "purge",
		Short: "Delete the data of a stack that is down",
		Args:  cobra.NoArgs,
	}
	name := stackFlag(cmd)
	yes := cmd.Flags().Bool("yes", false, "do not ask for the stack's name")
	old := cmd.Flags().Bool("old", false, "delete what a restore or an upgrade left behind, and keep the stack's data")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, done, err := openData(cmd.Context(), *name)
		if err != nil {
			return err
		}
		defer done()
		volumes, err := s.Purgeable(cmd.Context(), *old)
		if err != nil {
			return err
		}
		if len(volumes) == 0 {
			say("there is no volume to delete")
			return nil
		}
		for _, v := range volumes {
			fmt.Fprintf(os.Stderr, "  %s\t%s\n", v.Name, v.Size)
		}
		if !*yes {
			fmt.Fprintf(os.Stderr, "These volumes and all that is in them will be deleted. Type the stack's name (%s) to go on: ", *name)
			typed, _ := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
			if strings.TrimSpace(typed) != *name {
				return fmt.Errorf("%q is not the stack's name; nothing was deleted", strings.TrimSpace(typed))
			}
		}
		return s.Purge(cmd.Context(), volumes)
	}
	return cmd
}
