package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"trading-platform/settings"
)

// MarshalJSON writes a variable, without its value if that is a secret.
func (e Env) MarshalJSON() ([]byte, error) {
	type tagged Env // without this method
	if e.Secret {
		e.Value = settings.Hidden
	}
	return json.Marshal(tagged(e))
}

// MarshalJSON writes a file's SHA-256 in place of its content; of a secret file, it writes neither.
func (f File) MarshalJSON() ([]byte, error) {
	sum := ""
	if !f.Secret {
		sum = f.SHA256()
	}
	return json.Marshal(struct {
		Path   string `json:"path"`
		SHA256 string `json:"sha256,omitempty"`
		Secret bool   `json:"secret,omitempty"`
	}{f.Path, sum, f.Secret})
}

// SHA256 is the hash of the content, in hex.
func (f File) SHA256() string { return hexSHA256(f.Content) }

func hexSHA256(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// String names an image as it is shown to users.
func (i Image) String() string {
	if i.Build != nil {
		return i.Build.Name + " (built from " + i.Build.Context + ")"
	}
	return i.Reference
}

// JSON writes the plan as JSON. Secrets are left out.
func (p *Plan) JSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(p)
}

// Fingerprint returns a hash of all that the plan says, secrets included. It does not give them away.
func (p *Plan) Fingerprint() string {
	hash := sha256.New()
	_ = p.JSON(hash) // a hash accepts everything
	fmt.Fprintf(hash, "%q", p.Identity)
	for _, s := range p.Services {
		for _, e := range s.Env {
			fmt.Fprintf(hash, "%q", e.Value)
		}
		for _, f := range s.Files {
			fmt.Fprintf(hash, "%q %t", f.Content, f.Private)
		}
	}
	return hex.EncodeToString(hash.Sum(nil))
}

// WriteFiles writes the configuration files of all services into a folder, as
// <service>/<path>. Secret files are left out.
func (p *Plan) WriteFiles(dir string) error {
	for _, s := range p.Services {
		for _, f := range s.Files {
			if f.Secret {
				continue
			}
			path := filepath.Join(dir, s.Name, f.Path)
			if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
				return err
			}
			if err := os.WriteFile(path, []byte(f.Content), 0o644); err != nil { //nolint:gosec // no secret in it
				return err
			}
		}
	}
	return nil
}

// Text writes the plan as tables. Services are in the order in which they start.
func (p *Plan) Text(w io.Writer) error {
	fmt.Fprintf(w, "Stack %s: %d services, profiles: %s\n\n", p.Stack, len(p.Services), orDash(p.Profiles))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SERVICE\tCONTAINER\tIMAGE\tHOST PORTS\tSTARTS AFTER")
	for _, s := range p.Services {
		container := s.Containers[0]
		if n := len(s.Containers); n > 1 {
			container += fmt.Sprintf(" (%d replicas)", n)
		}
		name := s.Name
		if s.Local {
			name += " (local)"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", name, container, s.Image, PortList(s.Ports), orDash(s.After))
	}
	fmt.Fprintln(t, "\nNETWORK\tNAME\tSUBNET")
	for _, n := range p.Networks {
		fmt.Fprintf(t, "%s\t%s\t%s\n", n.Key, n.Name, orDash([]string{n.Subnet}))
	}
	fmt.Fprintln(t, "\nVOLUME\tNAME")
	for _, v := range p.Volumes {
		fmt.Fprintf(t, "%s\t%s\n", v.Key, v.Name)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	notes := slices.Concat(p.Open, p.Notes)
	for _, note := range notes {
		fmt.Fprintf(w, "\nnote: %s", note)
	}
	if len(notes) > 0 {
		fmt.Fprintln(w)
	}
	return nil
}

// Mermaid writes the services and their edges as a Mermaid graph.
func (p *Plan) Mermaid(w io.Writer) error {
	var b strings.Builder
	b.WriteString("graph LR\n")
	for _, s := range p.Services {
		fmt.Fprintf(&b, "  %s\n", s.Name)
		for _, name := range s.After {
			fmt.Fprintf(&b, "  %s --> %s\n", s.Name, name)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func orDash(words []string) string {
	if text := strings.Join(words, ", "); text != "" {
		return text
	}
	return "—"
}

// PortList joins ports, with their addresses if they have some. Consecutive ports become a range such as "8900-8949".
func PortList(ports []Port) string {
	var parts []string
	for i := 0; i < len(ports); i++ {
		first := i
		for i+1 < len(ports) && ports[i+1].Host == ports[i].Host+1 && ports[i+1].Address == ports[i].Address {
			i++
		}
		text := strings.TrimPrefix(fmt.Sprintf("%s:%d", ports[first].Address, ports[first].Host), ":")
		if i > first {
			text += fmt.Sprintf("-%d", ports[i].Host)
		}
		parts = append(parts, text)
	}
	return orDash(parts)
}
