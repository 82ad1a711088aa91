package catalog

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Page returns the content of docs/services.md: the services of the catalog as Markdown tables. Its
// first line has a hash of the catalog, which shows whether the page is outdated or was edited by hand.
func Page() string {
	var b strings.Builder
	text, _ := json.Marshal(Services()) // plain data encodes without an error
	fmt.Fprintf(&b, "<!-- catalog %x; written by go generate ./catalog -->\n# Services\n", sha256.Sum256(text))
	for _, profile := range append([]Profile{{}}, Profiles...) {
		fmt.Fprintf(&b, "\n## %s\n\n", cmp.Or(profile.Name, "In every stack"))
		b.WriteString("| service | runs | port | on the host | starts after | data | memory | capabilities |\n|---|---|---|---|---|---|---|---|\n")
		for _, s := range Services() {
			if s.Profile != profile.Name {
				continue
			}
			row := []string{
				"**" + s.Name + "**: " + s.About, cmp.Or(s.Image, "`apps/"+s.App+"`"), strings.TrimPrefix(strconv.Itoa(s.Port), "0"), s.published(),
				strings.Join(s.After, ", "), s.data(), strconv.Itoa(s.Memory) + " MB", strings.Join(s.Capabilities, ", "),
			}
			b.WriteString("| " + strings.Join(row, " | ") + " |\n")
		}
	}
	return b.String()
}

// published returns the service's ports on the host.
func (s Service) published() string {
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
func (s Service) data() string {
	var volumes []string
	for _, m := range s.Mounts {
		if m.Volume != "" && !m.ReadOnly {
			volumes = append(volumes, m.Volume)
		}
	}
	return strings.Join(slices.Compact(volumes), ", ")
}
