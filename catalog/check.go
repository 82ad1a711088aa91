package catalog

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Check finds mistakes in a catalog's own graph: names that stand twice, edges to
// services, volumes, networks or profiles that do not exist, edges that a profile
// alone could not satisfy, and cycles (with their path). It gives all of them.
func Check(services []Service) error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	byName := map[string]Service{}
	for _, s := range services {
		if _, twice := byName[s.Name]; twice {
			fault("service %s stands in the catalog twice", s.Name)
		}
		byName[s.Name] = s
	}
	for _, s := range services {
		if s.Profile != "" && !slices.Contains(ProfileNames(), s.Profile) {
			fault("service %s: no profile %q", s.Name, s.Profile)
		}
		if (s.App == "") == (s.Image == "") {
			fault("service %s needs either an app or a stock image", s.Name)
		}
		if len(s.Probe.Command) == 0 {
			fault("service %s has no probe, so nothing could wait for it", s.Name)
		}
		for _, name := range s.After {
			need, ok := byName[name]
			switch {
			case !ok:
				fault("service %s starts after %s, which is not in the catalog", s.Name, name)
			case need.Profile != "" && need.Profile != s.Profile:
				fault("service %s starts after %s, which only profile %s brings", s.Name, name, need.Profile)
			}
		}
		for _, m := range s.Mounts {
			if m.Volume != "" && !slices.Contains(VolumeNames(), m.Volume) {
				fault("service %s mounts %s, which is no volume of the catalog", s.Name, m.Volume)
			}
		}
		for _, n := range s.Networks {
			if !slices.ContainsFunc(Networks, func(o Network) bool { return o.Name == n }) {
				fault("service %s joins %s, which is no network of the catalog", s.Name, n)
			}
		}
	}
	if path := cycle(byName); path != nil {
		fault("services wait for each other: %s", strings.Join(path, " → "))
	}
	return errors.Join(faults...)
}

// cycle gives the path of one cycle, or nil.
func cycle(services map[string]Service) []string {
	const (
		walking = 1
		done    = 2
	)
	state := map[string]int{}
	var path []string
	var walk func(name string) []string
	walk = func(name string) []string {
		switch state[name] {
		case done:
			return nil
		case walking:
			return append(slices.Clone(path[slices.Index(path, name):]), name)
		}
		state[name] = walking
		path = append(path, name)
		for _, need := range services[name].After {
			if found := walk(need); found != nil {
				return found
			}
		}
		path = path[:len(path)-1]
		state[name] = done
		return nil
	}
	names := make([]string, 0, len(services))
	for name := range services {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if found := walk(name); found != nil {
			return found
		}
	}
	return nil
}
