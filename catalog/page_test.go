package catalog_test

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/catalog"
)

var update = flag.Bool("update", false, "write docs/services.md anew")

func TestPage(t *testing.T) {
	const path = "../docs/services.md"
	page := page()
	for _, s := range catalog.Services() {
		assert.Equal(t, 1, strings.Count(page, "\n| **"+s.Name+"**: "), s.Name)
	}
	assert.Contains(t, page, "| **redis**: Redis, queues and caches | redis:7-alpine | 6379 | 6379 |  | redisdata | 4096 MB | CHOWN, DAC_OVERRIDE, SETGID, SETUID | operations |")
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

// page returns the content of docs/services.md: the services of the catalog as Markdown tables. Its
// first line has a hash of the catalog, which shows whether the page is outdated or was edited by hand.
func page() string {
	var b strings.Builder
	text, _ := json.Marshal(catalog.Services()) // plain data encodes without an error
	fmt.Fprintf(&b, "<!-- catalog %x; written by go generate ./catalog -->\n# Services\n", sha256.Sum256(text))
	profiles := append([]catalog.Profile{{}}, catalog.Profiles...)
	b.WriteString("\nAn arrow leads from a service to one that must be healthy before it starts.\n\n```mermaid\ngraph LR\n")
	for _, profile := range profiles {
		fmt.Fprintf(&b, "  subgraph %s\n", cmp.Or(profile.Name, "base"))
		for _, s := range catalog.Services() {
			if s.Profile == profile.Name {
				fmt.Fprintf(&b, "    %s\n", s.Name)
			}
		}
		b.WriteString("  end\n")
	}
	for _, s := range catalog.Services() {
		for _, first := range s.After {
			fmt.Fprintf(&b, "  %s --> %s\n", s.Name, first)
		}
	}
	b.WriteString("```\n")
	for _, profile := range profiles {
		fmt.Fprintf(&b, "\n## %s\n\n", cmp.Or(profile.Name, "In every stack"))
		b.WriteString("| service | runs | port | on the host | starts after | data | memory | capabilities | owner |\n|---|---|---|---|---|---|---|---|---|\n")
		for _, s := range catalog.Services() {
			if s.Profile != profile.Name {
				continue
			}
			row := []string{
				"**" + s.Name + "**: " + s.About, cmp.Or(s.Image, "`apps/"+s.App+"`"), strings.TrimPrefix(strconv.Itoa(s.Port), "0"), published(s),
				strings.Join(s.After, ", "), data(s), strconv.Itoa(s.Memory) + " MB", strings.Join(s.Capabilities, ", "), s.Owner,
			}
			b.WriteString("| " + strings.Join(row, " | ") + " |\n")
		}
	}
	return b.String()
}

// published returns the service's ports on the host.
func published(s catalog.Service) string {
	var ports []string
	for _, p := range s.Ports {
		text := strconv.Itoa(p.Host)
		if p.Count > 1 {
			text += "–" + strconv.Itoa(p.Host+p.Count-1)
		}
		ports = append(ports, text)
	}
	return strings.Join(ports, ", ")
}

// data returns the volumes that the service writes to.
func data(s catalog.Service) string {
	var volumes []string
	for _, m := range s.Mounts {
		if m.Volume != "" && !m.ReadOnly {
			volumes = append(volumes, m.Volume)
		}
	}
	return strings.Join(slices.Compact(volumes), ", ")
}
