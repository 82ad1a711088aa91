package plan_test

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/catalog"
	"trading-platform/plan"
)

// The reference app is a module of its own and embeds what it must know of the catalog.
func TestReferenceContract(t *testing.T) {
	const path = "../apps/reference/contract.json"
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(plan.ReferenceContract()), 0o600))
	}
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	if plan.ReferenceContract() != string(text) { // both whole would fill the screen
		t.Error("apps/reference/contract.json differs from the catalog. Fix: cd apps/reference && go generate")
	}
}

func TestReferenceContractHasEveryServiceWithItsHealth(t *testing.T) {
	var entries []struct {
		Name, Role, Health string
		Variables          map[string]string
	}
	require.NoError(t, json.Unmarshal([]byte(plan.ReferenceContract()), &entries))
	require.Len(t, entries, len(catalog.Services()))
	for i, s := range catalog.Services() {
		assert.Equal(t, s.Name, entries[i].Name)
		assert.NotEmpty(t, entries[i].Health, s.Name)
		assert.Equal(t, s.App == "", entries[i].Role == "", s.Name)
		if s.App != "" {
			assert.Len(t, entries[i].Variables, len(s.Env), s.Name)
		}
	}
}
