package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"trading-platform/backup"
	engines "trading-platform/engine"
	"trading-platform/observe"
)

// withData opens the stack's engine and settings, locks its data, and calls work. It refuses a stack with
// invalid settings, because they may name the wrong volumes.
func (t target) withData(work func(*backup.Stack) error) error {
	p, _, err := t.resolve()
	if err != nil {
		return err
	}
	if err := t.refuse(p); err != nil {
		return err
	}
	return t.withEngine(func(engine *client.Client, _ engines.Ref) error {
		if err := observe.OnThisNode(t.cmd.Context(), engine, p); err != nil {
			return err
		}
		s := &backup.Stack{
			Engine: engine, Plan: p, Say: say,
			SetVolumes: func(volumes map[string]string) error { return t.SetConfig(t.stack, "volumes", volumes) },
			Up:         func(ctx context.Context) error { return t.Run(ctx, "up", t.stack, nil, say) },
		}
		unlock, err := s.Lock(t.cmd.Context(), t.StackFile(t.stack)+".data-lock")
		if err != nil {
			return err
		}
		defer unlock()
		return work(s)
	})
}

func backupCommand() *cobra.Command {
	return stackCommand(&cobra.Command{
		Use:   "backup [file]",
		Short: "Save the data of a running stack in one file",
		Long: `Save the data of a running stack in one file: PostgreSQL's roles and databases as
pg_dump makes them, Redis' snapshot, and an archive of each other volume, with checksums.

The stack keeps running; the containers that write to an archived volume are paused
while it is copied. The file holds every password that the database knows, and only its
owner can read it. It is named <stack>-<time>.backup.zip unless a name is given.`,
		Args: cobra.MaximumNArgs(1),
	}, func(t target, args []string) error {
		file := t.stack + "-" + time.Now().UTC().Format("20060102T150405Z") + ".backup.zip"
		if len(args) > 0 {
			file = args[0]
		}
		return t.withData(func(s *backup.Stack) error {
			if err := s.Backup(t.cmd.Context(), file); err != nil {
				return err
			}
			_, err := fmt.Fprintln(t.cmd.OutOrStdout(), file)
			return err
		})
	})
}

func restoreCommand() *cobra.Command {
	return stackCommand(&cobra.Command{
		Use:   "restore file",
		Short: "Replace a stack's data with that of a backup, and bring the stack up",
		Long: `Replace a stack's data with that of a backup, and bring the stack up.

The whole file is checked first, then restored into new volumes. The stack switches to
them only when the restore is complete. The previous volumes are kept.`,
		Args: cobra.ExactArgs(1),
	}, func(t target, args []string) error {
		file, err := backup.Open(args[0])
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }()
		if err := t.Init(t.cmd.Context(), t.stack, false, say); err != nil {
			return err
		}
		return t.withData(func(s *backup.Stack) error { return s.Restore(t.cmd.Context(), file) })
	})
}

func upgradeCommand() *cobra.Command {
	var from string
	cmd := stackCommand(&cobra.Command{
		Use:   "upgrade",
		Short: "Move PostgreSQL's data to the major version of the stack's image",
		Long: `Move PostgreSQL's data to the major version of the stack's image, which images.postgres
sets. The data is copied from a server of the old version into a new volume. The stack
switches to it only when the copy is complete. The previous volume is kept.`,
		Args: cobra.NoArgs,
	}, func(t target, _ []string) error {
		return t.withData(func(s *backup.Stack) error { return s.Upgrade(t.cmd.Context(), from) })
	})
	cmd.Flags().StringVar(&from, "from", "", "image of the version that wrote the data (default: the image of the stack's container, or else postgres:<version>)")
	return cmd
}

func purgeCommand() *cobra.Command {
	var yes, old bool
	cmd := stackCommand(&cobra.Command{
		Use:   "purge",
		Short: "Delete the data of a stack that is down",
		Args:  cobra.NoArgs,
	}, func(t target, _ []string) error {
		agreed := func(volumes []string) error {
			return confirm(t.cmd, yes, volumes, "These volumes and all their data will be deleted. Type the stack's name ("+t.stack+") to continue: ", t.stack)
		}
		return t.withData(func(s *backup.Stack) error { return s.Purge(t.cmd.Context(), old, agreed) })
	})
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask for the stack's name")
	cmd.Flags().BoolVar(&old, "old", false, "delete the previous volumes that a restore or an upgrade kept, and not the stack's data")
	return cmd
}

// confirm asks the user to type a word before what is in a list is deleted. yes is the flag by which the user has agreed already.
func confirm(cmd *cobra.Command, yes bool, list []string, question, word string) error {
	if yes {
		return nil
	}
	fmt.Fprintf(os.Stderr, "  %s\n%s", strings.Join(list, "\n  "), question)
	typed, _ := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if typed = strings.TrimSpace(typed); typed != word {
		return fmt.Errorf("%q is not %s; nothing was deleted", typed, word)
	}
	return nil
}
