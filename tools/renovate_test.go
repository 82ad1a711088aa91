package tools

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/catalog"
)

// What Renovate does not find, it never updates, and it does not say so.
func TestRenovateFindsEveryImageOfTheCatalog(t *testing.T) {
	text, err := os.ReadFile("../renovate.json")
	require.NoError(t, err)
	var config struct {
		CustomManagers []struct{ ManagerFilePatterns, MatchStrings []string }
	}
	require.NoError(t, json.Unmarshal(text, &config))
	require.NotEmpty(t, config.CustomManagers)
	manager := config.CustomManagers[0]
	require.Len(t, manager.ManagerFilePatterns, 1)
	require.Len(t, manager.MatchStrings, 1)
	path := regexp.MustCompile(strings.Trim(manager.ManagerFilePatterns[0], "/"))
	image := regexp.MustCompile(manager.MatchStrings[0])

	files, err := filepath.Glob("../catalog/*.go")
	require.NoError(t, err)
	found := map[string]bool{}
	for _, file := range files {
		if !path.MatchString("catalog/" + filepath.Base(file)) {
			continue
		}
		source, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, match := range image.FindAllStringSubmatch(string(source), -1) {
			found[match[image.SubexpIndex("depName")]+":"+match[image.SubexpIndex("currentValue")]] = true
		}
	}
	used := map[string]bool{}
	for _, service := range catalog.Services() {
		if service.Image != "" {
			used[service.Image] = true
		}
	}
	assert.Equal(t, used, found)
}
