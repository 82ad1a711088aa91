package catalog_test

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/catalog"
)

var update = flag.Bool("update", false, "write docs/services.md anew")

func TestPage(t *testing.T) {
	const path = "../docs/services.md"
	page := catalog.Page()
	for _, s := range catalog.Services() {
		assert.Equal(t, 1, strings.Count(page, "\n| **"+s.Name+"**: "), s.Name)
	}
	assert.Contains(t, page, "| **redis**: Redis, queues and caches | redis:7-alpine | 6379 | 6379 |  | redisdata | 4096 MB | CHOWN, DAC_OVERRIDE, SETGID, SETUID |")
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(page), 0o600))
	}
	file, err := os.ReadFile(path)
	require.NoError(t, err)
	if of, _, _ := strings.Cut(page, "\n"); strings.HasPrefix(string(file), of) {
		assert.Equal(t, page, string(file), "docs/services.md was written by hand. Fix: go generate ./catalog")
	} else {
		t.Log("docs/services.md is of an earlier catalog: go generate ./catalog writes it anew")
	}
}
