// Package catalogtest gives tests what follows from the catalog, so that a new entry takes no edit of them.
package catalogtest

import (
	"slices"
	"strings"

	"trading-platform/catalog"
)

// Required gives a made-up value for each variable that some service of the catalog
// requires, and own values of the caller's over them.
func Required(own map[string]string) map[string]string {
	values := map[string]string{}
	for _, s := range catalog.Services() {
		for _, v := range s.Env {
			if v.Required {
				values[v.From[0]] = "canary-" + strings.ToLower(v.From[0])
			}
		}
	}
	for name, value := range own {
		values[name] = value
	}
	return values
}

// BaseWithout gives the names of the base's services but the given ones.
func BaseWithout(names ...string) []string {
	var others []string
	for _, s := range catalog.Services() {
		if s.Profile == "" && !slices.Contains(names, s.Name) {
			others = append(others, s.Name)
		}
	}
	return others
}
