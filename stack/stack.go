// Package stack resolves a stack's config into its plan, for both the Pulumi program and
// the platform command.
package stack

import (
	"slices"

	"trading-platform/catalog"
	"trading-platform/certs"
	"trading-platform/fault"
	"trading-platform/plan"
	"trading-platform/settings"
)

// Resolve turns a stack's config into its plan, including the certificates that the stack
// uploads. If the error is a fault.List, it returns a plan as well, as plan.Resolve does.
func Resolve(src settings.Source) (*plan.Plan, *settings.Settings, error) {
	var faults fault.List
	set, err := settings.Load(src)
	if err := faults.Gather(err); err != nil {
		return nil, nil, err
	}
	files, err := readCerts(set)
	if err := faults.Gather(err); err != nil {
		return nil, nil, err
	}
	p, err := plan.Resolve(set, files)
	if err := faults.Gather(err); err != nil {
		return nil, nil, err
	}
	return p, set, faults.Err()
}

// NeedsCerts reports whether a stack has a service that reads files of the certificate folder.
func NeedsCerts(set *settings.Settings) bool {
	return slices.ContainsFunc(catalog.Services(), func(s catalog.Service) bool {
		return len(s.Certs) > 0 && slices.Contains(set.Profiles, s.Profile) && !slices.Contains(set.Disabled, s.Name)
	})
}

// readCerts checks the certificate files of a stack that has nginx, and returns them.
func readCerts(set *settings.Settings) (map[string]string, error) {
	if !NeedsCerts(set) {
		return nil, nil
	}
	if set.CertsDir == "" {
		return nil, fault.List{{
			Where: settings.Project + ":certsDir",
			What:  "nginx needs certificates, but the stack has no folder with certificates",
			Fix:   "platform init -s " + set.Stack + ", or: " + settings.SetCommand(set.Stack, "certsDir", "<folder>") + " && platform certs -s " + set.Stack,
		}}
	}
	if err := certs.Check(set.CertsDir, certs.Options{Stack: set.Stack, Names: set.ServerNames()}); err != nil {
		return nil, err
	}
	return certs.Load(set.CertsDir)
}
