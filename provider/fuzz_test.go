package provider

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// wrapped is a JSON value as a property: {"$secret": x} and {"$output": x} are wrapped,
// "$unknown" is not known yet.
func wrapped(v any) resource.PropertyValue {
	switch v := v.(type) {
	case map[string]any:
		if inner, ok := v["$secret"]; ok {
			return resource.MakeSecret(wrapped(inner))
		}
		if inner, ok := v["$output"]; ok {
			return resource.NewProperty(resource.Output{Element: wrapped(inner), Known: true})
		}
		object := resource.PropertyMap{}
		for key, inner := range v {
			object[resource.PropertyKey(key)] = wrapped(inner)
		}
		return resource.NewProperty(object)
	case []any:
		list := []resource.PropertyValue{}
		for _, inner := range v {
			list = append(list, wrapped(inner))
		}
		return resource.NewProperty(list)
	}
	if v == "$unknown" {
		return unknown
	}
	return resource.NewPropertyValue(v)
}

// fuzzed are the properties that a fuzzed text spells, nil for none.
func fuzzed(text string) resource.PropertyMap {
	var object map[string]any
	if json.Unmarshal([]byte(text), &object) != nil {
		return nil
	}
	properties := resource.PropertyMap{}
	for key, value := range object {
		properties[resource.PropertyKey(key)] = wrapped(value)
	}
	return properties
}

func addProperties(f *testing.F, add func(text string)) {
	f.Helper()
	texts := []string{
		`{"name":{"$secret":{"$output":"a"}},"image":"$unknown","envs":["A=1",null,{"$secret":"B=2"}],"labels":["x"],"memory":1e300}`,
		`{"name":"n","driver":null,"ipamConfigs":[{"subnet":"10.0.0.0/99"},{"$output":{"gateway":"::1%eth0"}}],"options":{"a":1}}`,
		`{"imageName":"a","skipPush":true,"build":{"$secret":{"context":".","args":{"A":"$unknown"},"platform":"//"}}}`,
	}
	for _, inputs := range []map[string]any{containerInputs, labelled} {
		text, err := json.Marshal(inputs)
		require.NoError(f, err)
		texts = append(texts, string(text))
	}
	for _, text := range texts {
		add(text)
	}
}

// Whatever a program passes, check answers, and what it accepts means the same when it is
// decoded, spelt out and decoded again.
func FuzzCheck(f *testing.F) {
	addProperties(f, func(text string) { f.Add(text) })
	f.Fuzz(func(t *testing.T, text string) {
		inputs := fuzzed(text)
		decode(inputs, &imageArgs{}) // its check reads the build context, wherever that is
		for token, kind := range New().types {
			if token == imageToken {
				continue
			}
			_, failures, err := kind.check(inputs)
			if err != nil || len(failures) > 0 || inputs.ContainsUnknowns() || token != containerToken {
				continue
			}
			args := arguments[containerArgs](inputs)
			spelt, err := json.Marshal(args)
			require.NoError(t, err)
			var object map[string]any
			require.NoError(t, json.Unmarshal(spelt, &object))
			again := arguments[containerArgs](resource.NewPropertyMapFromMap(object))
			assert.Empty(t, diffArgs[containerArgs](inputs, resource.NewPropertyMapFromMap(object)))
			assert.True(t, same(reflect.ValueOf(&args), reflect.ValueOf(&again), false))
		}
	})
}

// Nothing differs from itself, and what differs one way differs the other way too.
func FuzzDiff(f *testing.F) {
	addProperties(f, func(text string) { f.Add(text, strings.ReplaceAll(text, "1", "2")) })
	f.Fuzz(func(t *testing.T, before, after string) {
		olds, news := fuzzed(before), fuzzed(after)
		if olds.ContainsUnknowns() || news.ContainsUnknowns() {
			_ = diffArgs[containerArgs](olds, news)
			return
		}
		assert.Empty(t, diffArgs[containerArgs](olds, olds))
		there, back := diffArgs[containerArgs](olds, news), diffArgs[containerArgs](news, olds)
		for path := range there {
			assert.Contains(t, back, path)
		}
		assert.Len(t, back, len(there))
	})
}

// A text reaches the engine exactly as it is, or is refused without being shown.
func FuzzText(f *testing.F) {
	for _, text := range []string{
		"plain", "two\nlines\r\n", `"quoted" 'twice' \u0000 \x00`, "$HOME ${A:-b} $$", "100%s %!d", "a\x00b", "\xff\xfe", "\ufeff\u2028<&>", strings.Repeat("x", 1<<20),
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		value := resource.MakeSecret(resource.NewProperty(text))
		var args containerArgs
		failures := decode(properties(map[string]any{
			"name": "a", "image": "b", "envs": []any{value}, "logOpts": map[string]any{"a": value},
			"labels": []any{map[string]any{"label": "l", "value": value}},
		}), &args)
		if !utf8.ValidString(text) || strings.Contains(text, "\x00") {
			assert.Len(t, failures, 3)
			for _, failure := range failures {
				assert.Regexp(t, `^(envs|logOpts|labels\[0\].value) must (be UTF-8|not contain a NUL byte)$`, failure.Reason)
			}
		} else {
			require.Empty(t, failures)
			assert.Equal(t, []string{text, text, text}, []string{args.Envs[0], args.LogOpts["a"], args.Labels[0].Value})
		}
		var file upload
		failures = decode(properties(map[string]any{"file": "/f", "content": value}), &file)
		assert.Equal(t, utf8.ValidString(text), len(failures) == 0, "a file may hold NUL")
		if len(failures) == 0 {
			assert.Equal(t, text, string(file.Content))
		}
	})
}
