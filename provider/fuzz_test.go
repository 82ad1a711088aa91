package provider

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	p "github.com/pulumi/pulumi-go-provider"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/property"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// wrapped is a JSON value as a property: {"$secret": x} is a secret, {"$output": x} one
// that depends on a resource, and "$unknown" is not known yet.
func wrapped(v any) property.Value {
	switch v := v.(type) {
	case map[string]any:
		if inner, ok := v["$secret"]; ok {
			return secret(wrapped(inner))
		}
		if inner, ok := v["$output"]; ok {
			return wrapped(inner).WithDependencies([]resource.URN{urnOf(networkToken)})
		}
		object := map[string]any{}
		for key, inner := range v {
			object[key] = wrapped(inner)
		}
		return value(object)
	case []any:
		list := []any{}
		for _, inner := range v {
			list = append(list, wrapped(inner))
		}
		return value(list)
	}
	if v == "$unknown" {
		return unknown
	}
	return value(v)
}

// fuzzed are the properties that a fuzzed text spells, none for other texts.
func fuzzed(text string) property.Map {
	var object map[string]any
	if json.Unmarshal([]byte(text), &object) != nil {
		return property.Map{}
	}
	properties := property.Map{}
	for key, value := range object {
		properties = properties.Set(key, wrapped(value))
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

// Whatever a program passes, check answers, and what it accepts stays as it was given, makes
// a preview, and does not differ from itself.
func FuzzCheck(f *testing.F) {
	addProperties(f, func(text string) { f.Add(text) })
	f.Fuzz(func(t *testing.T, text string) {
		inputs, server := fuzzed(text), withEngine(t, nil)
		for _, token := range []string{containerToken, networkToken, volumeToken, remoteImageToken} {
			checked, err := server.Check(p.CheckRequest{Urn: urnOf(token), Inputs: inputs})
			require.NoError(t, err)
			if len(checked.Failures) > 0 {
				continue
			}
			assert.True(t, property.New(inputs).Equals(property.New(checked.Inputs)))
			preview, err := server.Create(p.CreateRequest{Urn: urnOf(token), Properties: checked.Inputs, DryRun: true})
			require.NoError(t, err)
			for name, value := range checked.Inputs.All {
				assert.True(t, value.Equals(preview.Properties.Get(name)), name)
			}
			if property.New(inputs).HasComputed() {
				continue
			}
			diff, err := server.Diff(p.DiffRequest{Urn: urnOf(token), State: preview.Properties, OldInputs: checked.Inputs, Inputs: checked.Inputs})
			require.NoError(t, err)
			assert.False(t, diff.HasChanges)
		}
	})
}

// Nothing differs from itself, and what differs one way differs the other way too.
func FuzzDiff(f *testing.F) {
	addProperties(f, func(text string) { f.Add(text, strings.ReplaceAll(text, "1", "2")) })
	f.Fuzz(func(t *testing.T, before, after string) {
		olds, news, server := fuzzed(before), fuzzed(after), withEngine(t, nil)
		changes := func(olds, news property.Map) map[string]p.PropertyDiff {
			resp, err := server.Diff(p.DiffRequest{Urn: urnOf(containerToken), State: properties(ourState), OldInputs: olds, Inputs: news})
			require.NoError(t, err)
			return resp.DetailedDiff
		}
		there, back := changes(olds, news), changes(news, olds)
		if property.New(olds).HasComputed() || property.New(news).HasComputed() {
			return
		}
		assert.Empty(t, changes(olds, olds))
		for path := range there {
			assert.Contains(t, back, path)
		}
		assert.Len(t, back, len(there))
	})
}

// A text reaches the engine exactly as it is, or is refused without being shown. One that
// is not UTF-8 does not even reach the provider: a message to it cannot hold it.
func FuzzText(f *testing.F) {
	for _, text := range []string{
		"plain", "two\nlines\r\n", `"quoted" 'twice' \u0000 \x00`, "$HOME ${A:-b} $$", "100%s %!d", "a\x00b", "\ufeff\u2028<&>", strings.Repeat("x", 1<<20),
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		text = strings.ToValidUTF8(text, "\ufffd")
		inputs := map[string]any{
			"name": "a", "image": "b", "wait": true, "envs": []any{secret(text)}, "logOpts": map[string]any{"a": secret(text)},
			"labels": []any{map[string]any{"label": "l", "value": secret(text)}},
		}
		faults := reasons(t, withEngine(t, nil), containerToken, inputs)
		if strings.Contains(text, "\x00") {
			assert.Equal(t, "envs[0] must not contain a NUL byte\nlabels[0].value must not contain a NUL byte\nlogOpts.a must not contain a NUL byte", faults)
		} else {
			require.Empty(t, faults)
			made := createdWith(t, inputs).created
			assert.Equal(t, []string{text, text, text}, []string{made.Config.Env[0], made.HostConfig.LogConfig.Config["a"], made.Config.Labels["l"]})
		}
		e := createdWith(t, map[string]any{"name": "a", "image": "b", "wait": true, "uploads": []any{map[string]any{"file": "/f", "content": secret(text)}}})
		files := tar.NewReader(bytes.NewReader(e.uploaded))
		_, err := files.Next()
		require.NoError(t, err)
		content, err := io.ReadAll(files)
		require.NoError(t, err)
		assert.Equal(t, text, string(content), "a file may hold NUL")
	})
}

// createdWith is the engine after the creation of a container.
func createdWith(t *testing.T, inputs map[string]any) *fakeEngine {
	t.Helper()
	e := &fakeEngine{inspect: []container.InspectResponse{healthy}}
	_, err := withEngine(t, e).Create(p.CreateRequest{Urn: urnOf(containerToken), Properties: properties(inputs)})
	require.NoError(t, err)
	return e
}
