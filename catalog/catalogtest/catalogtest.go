// Package catalogtest derives test data from the catalog, so that a new entry needs no edit of the tests.
package catalogtest

import (
	"maps"
	"slices"
	"strings"

	"trading-platform/catalog"
)

// Required returns a made-up value for each variable that a service of the catalog
// requires. The caller's own values replace them.
func Required(own map[string]string) map[string]string {
	values := map[string]string{}
	for _, s := range catalog.Services() {
		for _, v := range s.Env {
			if v.Required {
				values[v.From[0]] = "canary-" + strings.ToLower(v.From[0])
			}
		}
	}
	maps.Copy(values, own)
	return values
}

// BaseWithout returns the names of the base services except the given ones.
func BaseWithout(names ...string) []string {
	var others []string
	for _, s := range catalog.Services() {
		if s.Profile == "" && !slices.Contains(names, s.Name) {
			others = append(others, s.Name)
		}
	}
	return others
}
