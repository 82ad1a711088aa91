// Package stack resolves a stack's config all the way to its plan, the way the
// program and the platform command both need it.
package stack

import (
	"trading-platform/internal/fault"
	"trading-platform/plan"
	"trading-platform/settings"
)

// Resolve turns a stack's config into its plan, with the certificates that it
// uploads. As plan.Resolve does, it gives a plan with its fault.List, as far as it
// goes; any other error comes without one.
func Resolve(src settings.Source) (*plan.Plan, *settings.Settings, error) {
	var faults fault.List
	set, err := settings.Load(src)
	if err := faults.Gather(err); err != nil {
		return nil, nil, err
	}
	p, err := plan.Resolve(set, nil)
	if err := faults.Gather(err); err != nil {
		return nil, nil, err
	}
	return p, set, faults.Err()
}
