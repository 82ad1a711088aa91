package main

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/client"
	"github.com/pkg/browser"
	"github.com/spf13/cobra"

	"trading-platform/backup"
	"trading-platform/catalog"
	engines "trading-platform/engine"
	"trading-platform/observe"
	"trading-platform/plan"
	"trading-platform/workspace"
)

// origin returns the checkout that stacks on the engine come from, empty if it is not known here, and the worktree that it is.
func (t target) origin(h *observe.Held, worktrees []workspace.Worktree) (root string, worktree *workspace.Worktree) {
	for _, one := range worktrees {
		if one.Owns(h.Identities) {
			return one.Root, &one
		}
	}
	w := t.Workspace
	if t.Worktree != "" { // the main checkout is the folder above .git/worktrees/<name>
		w, _ = workspace.Open(filepath.Dir(filepath.Dir(filepath.Dir(t.Worktree)))) // here has found the home
	}
	for _, name := range h.Stacks {
		if src, err := w.Source(name); err == nil && src.Config["namePrefix"] == h.NamePrefix && slices.Contains(h.Identities, src.Config["identity"]) {
			return w.Root, nil
		}
	}
	return "", nil
}

// eachStack calls use for all stacks on the engine of the stack -s, with the size of their data.
func (t target) eachStack(use func(engine *client.Client, h *observe.Held, size, root string, worktree *workspace.Worktree) error) error {
	return t.withPlan(func(engine *client.Client, _ engines.Ref, p *plan.Plan) error {
		worktrees, err := t.Worktrees()
		if err != nil {
			return err
		}
		held, err := observe.Stacks(t.cmd.Context(), engine)
		for _, h := range held {
			root, worktree := t.origin(h, worktrees)
			size := (&backup.Stack{Engine: engine, Plan: p}).Size(t.cmd.Context(), h.Volumes...)
			if err := use(engine, h, size, root, worktree); err != nil {
				return err
			}
		}
		return err
	})
}

func stacksCommand() *cobra.Command {
	cmd := stackCommand(&cobra.Command{
		Use:   "stacks",
		Short: "List all stacks on the engine, with their state, age, size of data, branch, worktree and ports",
		Args:  cobra.NoArgs,
	}, func(t target, _ []string) error {
		table := tabwriter.NewWriter(t.cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "PREFIX\tSTACK\tSTATE\tAGE\tDATA\tBRANCH\tWORKTREE\tPORTS")
		err := t.eachStack(func(_ *client.Client, h *observe.Held, size, root string, worktree *workspace.Worktree) error {
			branch := ""
			if worktree != nil && worktree.Gone() {
				root += " (removed)"
			} else if root != "" {
				out, _ := exec.CommandContext(t.cmd.Context(), "git", "-C", root, "branch", "--show-current").Output()
				branch = strings.TrimSpace(string(out))
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", h.NamePrefix, strings.Join(h.Stacks, ", "), h.State(),
				units.HumanDuration(time.Since(h.Since)), size, cmp.Or(branch, "—"), cmp.Or(root, "—"), h.Ports())
			return nil
		})
		return cmp.Or(err, table.Flush())
	})
	cmd.AddCommand(pruneCommand())
	return cmd
}

func pruneCommand() *cobra.Command {
	var yes bool
	cmd := stackCommand(&cobra.Command{
		Use:   "prune",
		Short: "Delete the stacks whose worktree was removed: containers and networks, then their data, then their secrets",
		Args:  cobra.NoArgs,
	}, func(t target, _ []string) error {
		var list []string
		var remove []func() error
		err := t.eachStack(func(engine *client.Client, h *observe.Held, size, root string, worktree *workspace.Worktree) error {
			if worktree != nil && worktree.Gone() {
				list = append(list, fmt.Sprintf("%s of %s: %d containers, %d volumes (%s)", h.NamePrefix, root, len(h.Containers), len(h.Volumes), size))
				remove = append(remove, func() error {
					if err := backup.Prune(t.cmd.Context(), engine, h); err != nil {
						return err
					}
					return os.RemoveAll(worktree.State)
				})
			}
			return nil
		})
		if err != nil {
			return err
		}
		if len(list) == 0 {
			say("no stack is of a worktree that was removed")
			return nil
		}
		if err := confirm(t.cmd, yes, list, "These stacks and all their data will be deleted. Type prune to continue: ", "prune"); err != nil {
			return err
		}
		for i := range remove {
			if err := remove[i](); err != nil {
				return err
			}
			say("deleted " + list[i])
		}
		return nil
	})
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// snapshotNamed makes a command for one snapshot, which it finds among those of all stacks, after it has set up the stack -s.
func snapshotNamed(use, short string, run func(t target, s *backup.Stack, found backup.Snapshot) error) *cobra.Command {
	return stackCommand(&cobra.Command{Use: use + " snapshot", Short: short, Args: cobra.ExactArgs(1)}, func(t target, args []string) error {
		if err := t.Init(t.cmd.Context(), t.stack, false, say); err != nil {
			return err
		}
		return t.withData(func(s *backup.Stack) error {
			found, err := backup.FindSnapshot(t.cmd.Context(), s.Engine, args[0])
			if err != nil {
				return err
			}
			return run(t, s, found)
		})
	})
}

func snapshotCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "snapshot", Short: "Save all volumes of a stack as they are at one instant, and go back to them"}
	cmd.AddCommand(
		stackCommand(&cobra.Command{Use: "save name", Short: "Save a snapshot; the containers that write are paused for a moment", Args: cobra.ExactArgs(1)}, func(t target, args []string) error {
			return t.withData(func(s *backup.Stack) error { return s.SaveSnapshot(t.cmd.Context(), args[0]) })
		}),
		stackCommand(&cobra.Command{Use: "list", Short: "List the snapshots on the engine, of all stacks", Args: cobra.NoArgs}, func(t target, _ []string) error {
			return t.withPlan(func(engine *client.Client, _ engines.Ref, p *plan.Plan) error {
				all, err := backup.Snapshots(t.cmd.Context(), engine)
				table := tabwriter.NewWriter(t.cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(table, "SNAPSHOT\tOF\tMADE\tDATA")
				for _, s := range all {
					size := (&backup.Stack{Engine: engine, Plan: p}).Size(t.cmd.Context(), slices.Collect(maps.Values(s.Volumes))...)
					fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", s.Name, s.NamePrefix, s.Made.Local().Format(time.DateTime), size)
				}
				return cmp.Or(err, table.Flush())
			})
		}),
		snapshotNamed("restore", "Replace the stack's data with its snapshot, and bring the stack up; the previous volumes are kept", func(t target, s *backup.Stack, found backup.Snapshot) error {
			if found.NamePrefix != s.Plan.NamePrefix {
				return fmt.Errorf("snapshot %s is of %s, and this stack is %s. Fix: platform fork -s %s %[1]s", found.Name, found.NamePrefix, s.Plan.NamePrefix, t.stack)
			}
			return s.RestoreSnapshot(t.cmd.Context(), found)
		}),
		snapshotNamed("rm", "Delete a snapshot, of any stack on the engine", func(t target, s *backup.Stack, found backup.Snapshot) error {
			return backup.Prune(t.cmd.Context(), s.Engine, &observe.Held{Volumes: slices.Collect(maps.Values(found.Volumes))})
		}),
	)
	return cmd
}

func forkCommand() *cobra.Command {
	return snapshotNamed("fork", "Bring this worktree's stack up on a copy of a snapshot, which may be of another worktree's stack", func(t target, s *backup.Stack, found backup.Snapshot) error {
		return s.RestoreSnapshot(t.cmd.Context(), found)
	})
}

func openCommand() *cobra.Command {
	return stackCommand(&cobra.Command{Use: "open", Short: "Open the stack's page in the browser, and print its address", Args: cobra.NoArgs}, func(t target, _ []string) error {
		p, _, err := t.resolve()
		if p == nil {
			return err
		}
		page := ""
		for _, tier := range []catalog.Tier{catalog.Base, catalog.Web, catalog.Proxy} { // nginx rather than the console, rather than a page of the base
			for _, s := range p.Services {
				if url := p.URLs()[s.Name]; s.Tier == tier && strings.HasPrefix(url, "http") {
					page = url
				}
			}
		}
		fmt.Fprintln(t.cmd.OutOrStdout(), cmp.Or(page, "stack "+t.stack+" has no page"))
		browser.Stdout, browser.Stderr = nil, nil
		if page != "" {
			_ = browser.OpenURL(page) // without a browser, the address can be copied
		}
		return nil
	})
}
