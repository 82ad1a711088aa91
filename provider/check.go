package provider

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	p "github.com/pulumi/pulumi-go-provider"
	"github.com/pulumi/pulumi/pkg/v3/codegen/schema"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
	"github.com/pulumi/pulumi/sdk/v3/go/property"
)

// failures does not name a property, because Pulumi prints the value of a property that is named.
func failures(faults []string) []p.CheckFailure {
	var all []p.CheckFailure
	for _, fault := range faults {
		all = append(all, p.CheckFailure{Reason: fault})
	}
	return all
}

// objectFaults compares an object with its schema. It also returns the properties that
// have no fault.
func (d *provider) objectFaults(
	path string, object property.Map, properties map[string]schema.PropertySpec, required []string,
) ([]string, property.Map) {
	var faults []string
	for _, name := range required {
		if object.Get(name).IsNull() {
			faults = append(faults, path+name+" is required")
		}
	}
	for name, value := range object.AllStable {
		spec, served := properties[name]
		var found []string
		switch {
		case value.IsNull():
		case served:
			found = d.faults(path+name, spec.TypeSpec, value)
		default:
			found = []string{path + name + " is not served by the offline docker provider: leave it out, or use the official docker plugin " +
				"(`platform init` chooses the provider)"}
		}
		if len(found) > 0 || value.IsNull() {
			object = object.Delete(name)
		}
		faults = append(faults, found...)
	}
	return faults, object
}

// faults compares a value with its type.
func (d *provider) faults(path string, t schema.TypeSpec, v property.Value) []string {
	must := func(what string) []string { return []string{path + " must " + what} }
	var faults []string
	switch {
	case v.IsComputed():
	case t.Ref != "":
		if !v.IsMap() {
			return must("be a map")
		}
		object := d.object(t)
		faults, _ = d.objectFaults(path+".", v.AsMap(), object.Properties, object.Required)
	case t.Type == "object":
		if !v.IsMap() {
			return must("be a map")
		}
		for key, element := range v.AsMap().AllStable {
			faults = append(faults, d.faults(path+"."+key, *t.AdditionalProperties, element)...)
		}
	case t.Type == "array":
		if !v.IsArray() {
			return must("be a list")
		}
		for i, element := range v.AsArray().All {
			faults = append(faults, d.faults(fmt.Sprintf("%s[%d]", path, i), *t.Items, element)...)
		}
	case t.Type == "boolean" && !v.IsBool():
		return must("be true or false")
	case t.Type == "integer" && (!v.IsNumber() || v.AsNumber() != math.Trunc(v.AsNumber()) || math.Abs(v.AsNumber()) > 1<<53):
		return must("be a whole number")
	case t.Type == "string" && !v.IsString():
		return must("be a string")
	case t.Type == "string" && strings.Contains(v.AsString(), "\x00") && !strings.HasSuffix(path, ".content"):
		// The engine would cut the text there. A file may contain any bytes.
		return must("not contain a NUL byte")
	case slices.Contains(durations, path[strings.LastIndex(path, ".")+1:]):
		if _, err := time.ParseDuration(v.AsString()); err != nil && v.AsString() != "" {
			return must("be a duration such as 30s or 1m30s")
		}
	}
	return faults
}

// object is the type that a reference names.
func (d *provider) object(t schema.TypeSpec) schema.ComplexTypeSpec {
	return d.types[tokens.Type(strings.TrimPrefix(t.Ref, "#/types/"))]
}
