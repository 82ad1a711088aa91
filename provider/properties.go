package provider

import (
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
)

// The arguments of a resource are one Go struct, whose tags are all that check, diff
// and schema need to know of a property:
//
//	json:"name"           the property's name in Pulumi
//	rule:"required"       it must be given
//	rule:"update"         a change is carried out, or only noted, without a replacement
//	rule:"set"            a list whose order means nothing
//
// A property without "update" replaces the resource when it changes.

// duration is a Go duration as text ("1m30s"). Two spellings of one length of time
// are the same duration.
type duration string

// value is the length of time; zero for an empty or malformed text, which check has
// refused before.
func (d duration) value() time.Duration {
	v, _ := time.ParseDuration(string(d))
	return v
}

// content is the text of a file, in which every character may stand.
type content string

var durationType, contentType = reflect.TypeFor[duration](), reflect.TypeFor[content]()

// hasRule tells whether a field's rule tag holds the word.
func hasRule(f reflect.StructField, word string) bool {
	return slices.Contains(strings.Split(f.Tag.Get("rule"), ","), word)
}

func propertyName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// bare is a property without what Pulumi wraps it in: secrets are opened.
func bare(v resource.PropertyValue) resource.PropertyValue {
	for {
		switch {
		case v.IsSecret():
			v = v.SecretValue().Element
		case v.IsOutput() && !v.OutputValue().Known:
			return resource.MakeComputed(resource.NewProperty(""))
		case v.IsOutput():
			v = v.OutputValue().Element
		default:
			return v
		}
	}
}

// plain is a bare property as encoding/json knows it; what is unknown in a preview is
// left out.
func plain(v resource.PropertyValue) any {
	v = bare(v)
	switch {
	case v.IsObject():
		object := map[string]any{}
		for k, e := range v.ObjectValue() {
			if value := plain(e); value != nil {
				object[string(k)] = value
			}
		}
		return object
	case v.IsArray():
		list := []any{}
		for _, e := range v.ArrayValue() {
			if value := plain(e); value != nil {
				list = append(list, value)
			}
		}
		return list
	case v.IsString(), v.IsNumber(), v.IsBool():
		return v.V
	default:
		return nil
	}
}

// decode fills args, a pointer to an argument struct, from the properties and
// reports everything that does not fit it: unknown names, wrong types, missing
// required ones. Reasons never hold a value, since a value can be a secret.
func decode(properties resource.PropertyMap, args any) []plugin.CheckFailure {
	return decodeStruct("", properties, reflect.ValueOf(args).Elem())
}

func decodeStruct(path string, properties resource.PropertyMap, target reflect.Value) []plugin.CheckFailure {
	var failures []plugin.CheckFailure
	fail := func(name, format string, a ...any) {
		failures = append(failures, plugin.CheckFailure{
			Property: resource.PropertyKey(path + name), Reason: fmt.Sprintf(format, a...),
		})
	}
	fields := map[string]bool{}
	for i := range target.NumField() {
		field := target.Type().Field(i)
		name := propertyName(field)
		fields[name] = true
		value, given := properties[resource.PropertyKey(name)]
		if !given || value.IsNull() {
			if hasRule(field, "required") {
				fail(name, "%s%s is required", path, name)
			}
			continue
		}
		failures = append(failures, decodeValue(path+name, value, target.Field(i))...)
	}
	for _, key := range properties.StableKeys() {
		name := string(key)
		if fields[name] || strings.HasPrefix(name, "__") || properties[key].IsNull() {
			continue
		}
		fail(name, "%s%s is not served by the offline docker provider: leave it out, or use the official docker plugin "+
			"(`platform init` chooses the provider)", path, name)
	}
	return failures
}

func decodeValue(path string, value resource.PropertyValue, target reflect.Value) []plugin.CheckFailure {
	value = bare(value)
	kind := target.Type()
	fail := func(format string, a ...any) []plugin.CheckFailure {
		return []plugin.CheckFailure{{Property: resource.PropertyKey(path), Reason: path + fmt.Sprintf(format, a...)}}
	}
	switch {
	case value.IsComputed():
		return nil
	case kind.Kind() == reflect.Pointer && kind.Elem().Kind() == reflect.Struct && value.IsObject():
		target.Set(reflect.New(kind.Elem()))
		return decodeStruct(path+".", value.ObjectValue(), target.Elem())
	case kind.Kind() == reflect.Slice && kind.Elem().Kind() == reflect.Struct && value.IsArray():
		var failures []plugin.CheckFailure
		for i, element := range value.ArrayValue() {
			item := reflect.New(kind.Elem()).Elem()
			place := fmt.Sprintf("%s[%d]", path, i)
			if element = bare(element); element.IsObject() {
				failures = append(failures, decodeStruct(place+".", element.ObjectValue(), item)...)
			} else if !element.IsComputed() {
				failures = append(failures, plugin.CheckFailure{Property: resource.PropertyKey(place), Reason: place + " must be a map"})
			}
			target.Set(reflect.Append(target, item))
		}
		return failures
	}
	// What JSON or the engine would change without a word is refused.
	texts := fmt.Sprint(plain(value))
	if !utf8.ValidString(texts) {
		return fail(" must be UTF-8")
	}
	if kind != contentType && strings.Contains(texts, "\x00") {
		return fail(" must not contain a NUL byte")
	}
	bytes, err := json.Marshal(plain(value))
	if err == nil {
		err = json.Unmarshal(bytes, target.Addr().Interface())
	}
	if err != nil {
		return fail(" must be %s", typeName(kind))
	}
	if _, err := time.ParseDuration(target.String()); kind == durationType && err != nil {
		return fail(" must be a duration such as 30s or 1m30s")
	}
	return nil
}

// typeName is a Go type in the words of a Pulumi user.
func typeName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return typeName(t.Elem())
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Slice:
		return "a list"
	case reflect.Map, reflect.Struct:
		return "a map"
	default:
		return "a text"
	}
}

// diffArgs compares what was given with what is given now, property by property, in
// the sense of the argument struct: an absent property and its zero value are the
// same, so are two spellings of a duration and two orders of a set. A property that
// is not known yet counts as changed.
func diffArgs[A any](olds, news resource.PropertyMap) map[string]plugin.PropertyDiff {
	oldArgs, newArgs := new(A), new(A)
	// Both have passed check; a fault here is one of an older version of this
	// provider and shows as a difference.
	decode(olds, oldArgs)
	decode(news, newArgs)
	return diffStruct("", olds, news, reflect.ValueOf(oldArgs).Elem(), reflect.ValueOf(newArgs).Elem(), nil)
}

func diffStruct(
	path string, olds, news resource.PropertyMap, oldArgs, newArgs reflect.Value, inherited *bool,
) map[string]plugin.PropertyDiff {
	diff := map[string]plugin.PropertyDiff{}
	for i := range oldArgs.NumField() {
		field := oldArgs.Type().Field(i)
		name := propertyName(field)
		replace := !hasRule(field, "update")
		if inherited != nil {
			replace = *inherited
		}
		key := resource.PropertyKey(name)
		oldValue, newValue := oldArgs.Field(i), newArgs.Field(i)
		unknown := news[key].ContainsUnknowns()
		if !unknown && same(oldValue, newValue, hasRule(field, "set")) {
			continue
		}
		if !unknown && field.Type.Kind() == reflect.Pointer && field.Type.Elem().Kind() == reflect.Struct &&
			!oldValue.IsNil() && !newValue.IsNil() {
			for k, v := range diffStruct(path+name+".", objectOf(olds[key]), objectOf(news[key]),
				oldValue.Elem(), newValue.Elem(), &replace) {
				diff[k] = v
			}
			continue
		}
		kind := plugin.DiffUpdate
		switch {
		case !olds.HasValue(key):
			kind = plugin.DiffAdd
		case !news.HasValue(key):
			kind = plugin.DiffDelete
		}
		if replace {
			kind = kind.AsReplace()
		}
		diff[path+name] = plugin.PropertyDiff{Kind: kind, InputDiff: true}
	}
	return diff
}

func objectOf(v resource.PropertyValue) resource.PropertyMap {
	if v = bare(v); v.IsObject() {
		return v.ObjectValue()
	}
	return nil
}

func same(a, b reflect.Value, set bool) bool {
	t := a.Type()
	switch {
	case t == durationType:
		return a.Interface().(duration).value() == b.Interface().(duration).value()
	case t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.Struct:
		if a.IsNil() || b.IsNil() {
			return a.IsNil() == b.IsNil()
		}
		for i := range t.Elem().NumField() {
			if !same(a.Elem().Field(i), b.Elem().Field(i), hasRule(t.Elem().Field(i), "set")) {
				return false
			}
		}
		return true
	case t.Kind() == reflect.Slice || t.Kind() == reflect.Map:
		if a.Len() == 0 && b.Len() == 0 {
			return true
		}
		if t.Kind() == reflect.Slice && set {
			return slices.Equal(canonical(a), canonical(b))
		}
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}

// canonical is a list's elements as texts in one order, sets inside them included.
func canonical(list reflect.Value) []string {
	texts := make([]string, list.Len())
	for i := range texts {
		element := reflect.New(list.Type().Elem()).Elem()
		element.Set(list.Index(i))
		if element.Kind() == reflect.Struct {
			for f := range element.NumField() {
				inner := element.Field(f)
				if inner.Kind() == reflect.Slice && hasRule(element.Type().Field(f), "set") {
					sorted := canonical(inner)
					inner.Set(reflect.ValueOf(sorted).Convert(inner.Type()))
				}
			}
		}
		if element.Kind() == reflect.String {
			texts[i] = element.String()
			continue
		}
		bytes, _ := json.Marshal(element.Interface())
		texts[i] = string(bytes)
	}
	slices.SortFunc(texts, cmp.Compare[string])
	return texts
}

// label is one label, as the official provider spells it.
type label struct {
	Label string `json:"label" rule:"required"`
	Value string `json:"value" rule:"required"`
}

func labelMap(labels []label) map[string]string {
	if len(labels) == 0 {
		return nil
	}
	byName := map[string]string{}
	for _, l := range labels {
		byName[l.Label] = l.Value
	}
	return byName
}
