package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"trading-platform/certs"
	"trading-platform/fault"
	"trading-platform/settings"
)

func certsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "certs",
		Short: "Make a local authority, nginx's certificate and client certificates; renew what is about to end",
		Args:  cobra.NoArgs,
	}
	name := stackFlag(cmd)
	clients := cmd.Flags().StringSlice("client", []string{"admin"}, "people or machines that get a client certificate")
	force := cmd.Flags().Bool("force", false, "make everything anew; client certificates given out before stop working")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		w, src, err := source(*name)
		if err != nil {
			return err
		}
		set, err := settings.Load(src)
		var faults fault.List
		if err := faults.Gather(err); err != nil {
			return err
		}
		dir := set.CertsDir
		if dir == "" {
			dir = w.CertsDir(*name)
		}
		report, err := certs.Ensure(dir, certs.Options{Stack: *name, Names: set.ServerNames(), Clients: *clients, Force: *force})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), report)
		return err
	}
	return cmd
}
