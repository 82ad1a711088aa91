package settings

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"trading-platform/catalog"
	"trading-platform/fault"
)

// TrackedOnly is the environment variable that has catalog.LocalFile ignored, because the work of others does not depend on it.
const TrackedOnly = "TRADING_PLATFORM_TRACKED_ONLY"

// local puts the services of catalog.LocalFile into the catalog, and returns the images that it gives to services of the catalog.
func (d *decoder) local() map[string]string {
	var services []catalog.Service
	images := map[string]string{}
	defer func() { catalog.SetLocal(services) }()
	text, err := os.ReadFile(filepath.Join(d.Root, catalog.LocalFile))
	if errors.Is(err, fs.ErrNotExist) || os.Getenv(TrackedOnly) != "" {
		return nil
	}
	var document yaml.Node
	var file struct{ Services map[string]yaml.Node }
	if err = cmp.Or(err, yaml.Unmarshal(text, &document)); err == nil && len(document.Content) > 0 {
		d.keys(document.Content[0], reflect.TypeFor[struct{ Services map[string]catalog.Service }]())
		err = document.Decode(&file)
	}
	d.malformed(err)
	for name, node := range file.Services {
		i := slices.IndexFunc(catalog.Tracked(), func(s catalog.Service) bool { return s.Name == name })
		s := catalog.Service{Name: name, Tier: catalog.Local, Memory: 1024}
		if i >= 0 {
			s = catalog.Tracked()[i]
			s.Env = nil // SetLocal adds them
		}
		image := s.Image
		s.Line = node.Line
		d.malformed(node.Decode(&s))
		if i >= 0 && s.Image != image {
			images[name], s.Image = s.Image, image
		}
		if !localName.MatchString(name) {
			d.faults.Add(fmt.Sprintf("%s:%d", catalog.LocalFile, s.Line), "use lower-case letters, digits and underscores", "%q is not the name of a service", name)
			continue
		}
		services = append(services, s)
	}
	slices.SortFunc(services, func(a, b catalog.Service) int { return a.Line - b.Line })
	return images
}

// localName matches the names of services, which facts such as ${url:NAME} can contain.
var localName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// malformed records what the YAML library says about the file. It names the lines.
func (d *decoder) malformed(err error) {
	if err != nil {
		d.faults.Add(catalog.LocalFile, "docs/daily.md has an example", "%s", strings.ReplaceAll(strings.TrimPrefix(err.Error(), "yaml: "), "\n ", ""))
	}
}

// keys compares the keys of a node with the fields of the type that it is decoded into, and spells them as the YAML library does.
func (d *decoder) keys(node *yaml.Node, t reflect.Type) {
	for i, child := range node.Content {
		switch {
		case node.Kind == yaml.SequenceNode && t.Kind() == reflect.Slice, node.Kind == yaml.MappingNode && t.Kind() == reflect.Map && i%2 == 1:
			if node.Kind == yaml.MappingNode {
				child.Line = node.Content[i-1].Line // where the entry begins
			}
			d.keys(child, t.Elem())
		case node.Kind == yaml.MappingNode && t.Kind() == reflect.Struct && i%2 == 0:
			known := map[string]reflect.Type{}
			var names []string
			for _, field := range reflect.VisibleFields(t) {
				if field.Tag.Get("yaml") != "-" {
					known[strings.ToLower(field.Name)] = field.Type
					names = append(names, initial.ReplaceAllStringFunc(field.Name, strings.ToLower))
				}
			}
			key := strings.ToLower(child.Value)
			if known[key] == nil {
				d.faults.Add(fmt.Sprintf("%s:%d", catalog.LocalFile, child.Line), "use one of "+strings.Join(names, ", "),
					"no key %q%s", child.Value, fault.DidYouMean(child.Value, names))
				continue
			}
			child.Value = key
			d.keys(node.Content[i+1], known[key])
		}
	}
}

// initial matches the capital letters that a field's name begins with.
var initial = regexp.MustCompile(`^[A-Z]+$|^[A-Z]`)
