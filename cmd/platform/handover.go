package main

import (
	"fmt"

	"github.com/joho/godotenv"
	"github.com/spf13/cobra"

	"trading-platform/operate"
	"trading-platform/settings"
	"trading-platform/workspace"
)

func handOverCommand() *cobra.Command {
	var file string
	cmd := serviceCommand(&cobra.Command{
		Use: "hand-over app", Short: "Stop an app's container, so that the app can run on this host, for example in a debugger",
		Args: cobra.ExactArgs(1),
	}, 1, func(t target, s *operate.Services, args []string) error {
		if machine := s.Here.Machine(); machine != "" {
			return fmt.Errorf("stack %s runs on %s, whose containers do not reach this host. Fix: run it on an engine on this host", t.stack, machine)
		}
		if err := s.Exist(t.cmd.Context()); err != nil {
			return err
		}
		if err := t.HandOver(t.cmd.Context(), t.stack, args[0], false, say); err != nil {
			return err
		}
		return t.printEnv(args[0], file)
	})
	cmd.Flags().StringVar(&file, "env-file", "", "write the variables, with secrets, to this file, which only you can read")
	return cmd
}

// printEnv prints the variables of an app for this host as a dotenv file, with its secrets only into a file.
func (t target) printEnv(app, file string) error {
	host, err := t.OnHost(t.cmd.Context(), t.stack, app)
	if err != nil {
		return err
	}
	env := map[string]string{}
	hidden := false
	for _, e := range host.Env {
		env[e.Name] = e.Value
		if e.Secret && file == "" {
			env[e.Name], hidden = settings.Hidden, true
		}
	}
	text, err := godotenv.Marshal(env)
	if err != nil {
		return err
	}
	if file == "" {
		_, err = fmt.Fprintln(t.cmd.OutOrStdout(), text)
	} else if err = workspace.WriteEnv(file, text+"\n"); err == nil {
		say("its variables are in " + file)
	}
	if hidden {
		say("secrets are not shown. Fix: --env-file writes them to a file that only you can read")
	}
	if host.Port > 0 {
		say(fmt.Sprintf("start %s on this host, at port %d of all addresses; the stack's containers cannot reach 127.0.0.1", app, host.Port))
	}
	return err
}

func takeBackCommand() *cobra.Command {
	return serviceCommand(&cobra.Command{
		Use: "take-back app", Short: "Run an app's container again, after hand-over", Args: cobra.ExactArgs(1),
	}, 1, func(t target, s *operate.Services, args []string) error {
		if err := s.Exist(t.cmd.Context()); err != nil {
			return err
		}
		return t.HandOver(t.cmd.Context(), t.stack, args[0], true, say)
	})
}
