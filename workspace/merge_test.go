package workspace

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMerge(t *testing.T) {
	for name, test := range map[string]struct{ last, now, own, want string }{
		"an edit of the tracked file follows":     {"a: 1", "a: 2", "a: 1", "a: 2"},
		"a number that Pulumi wrote as a text":    {"a: 1", "a: 2", `a: "1"`, "a: 2"},
		"a value that was set here stays":         {"a: 1", "a: 2", "a: 3", "a: 3"},
		"what stands here alone stays":            {"a: 1", "a: 2", "a: 1\nsalt: x", "a: 2\nsalt: x"},
		"what is new in the tracked file comes":   {"a: 1", "a: 1\nb: 2", "a: 1", "a: 1\nb: 2"},
		"what is new in both is the one here":     {"", "b: 2", "b: 3", "b: 3"},
		"what is gone from the tracked file goes": {"a: 1\nb: 2", "a: 1", "a: 1\nb: 2", "a: 1"},
		"what is gone, but was set here, stays":   {"a: 1\nb: 2", "a: 1", "a: 1\nb: 3", "a: 1\nb: 3"},
		"what was deleted here stays so":          {"a: 1\nb: 2", "a: 1\nb: 3", "a: 1", "a: 1"},
		"a map is merged key by key":              {"m: {a: 1, b: 1}", "m: {a: 2, b: 2}", "m: {a: 1, b: 3, c: 4}", "m: {a: 2, b: 3, c: 4}"},
		"maps in maps":                            {"m: {n: {a: 1}}", "m: {n: {a: 2}}", "m: {n: {a: 1, b: 1}}", "m: {n: {a: 2, b: 1}}"},
		"a key of a map that is gone":             {"m: {a: 1, b: 1}", "m: {a: 1}", "m: {a: 1, b: 1, c: 1}", "m: {a: 1, c: 1}"},
		"a map that is gone":                      {"m: {a: 1}", "", "m: {a: 1}", "{}"},
		"a map that is gone, with more here":      {"m: {a: 1}", "", "m: {a: 1, b: 2}", "m: {b: 2}"},
		"a map that is new in both":               {"", "m: {a: 1, b: 1}", "m: {b: 2}", "m: {a: 1, b: 2}"},
		"a list follows":                          {"l: [a]", "l: [b, a]", "l: [a]", "l: [b, a]"},
		"a list that was changed here follows":    {"l: [a]", "l: [a, b]", "l: [a, c]", "l: [a, c, b]"},
		"an item that is gone from a list goes":   {"l: [a, b]", "l: [a]", "l: [b, a, c]", "l: [a, c]"},
		"an item that was deleted here stays so":  {"l: [a, b]", "l: [a, b, c]", "l: [b]", "l: [b, c]"},
		"a list that is new in both":              {"", "l: [b, c]", "l: [a, b]", "l: [a, b, c]"},
		"a list that is gone, with more here":     {"l: [b]", "", "l: [a, b]", "l: [a]"},
		"a list that becomes a value":             {"l: [b]", "l: 1", "l: [b]", "l: 1"},
		"a value that becomes a map":              {"a: 1", "a: {b: 1}", "a: 1", "a: {b: 1}"},
		"a map that becomes a value":              {"a: {b: 1}", "a: 1", "a: {b: 1}", "a: 1"},
		"a secret here stays":                     {"a: 1", "a: 2", "a: {secure: AAA}", "a: {secure: AAA}"},
		"nothing tracked any more":                {"a: 1", "", "a: 1\nsalt: x", "salt: x"},
		"nothing here":                            {"", "a: 1", "", "a: 1"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := merge([]byte(test.last), []byte(test.now), []byte(test.own))
			require.NoError(t, err)
			assert.YAMLEq(t, test.want, string(got))
		})
	}
}

func TestMergeTracked(t *testing.T) {
	w := clone(t)
	write(t, w.trackedFile("dev"), "config: {trading-platform:profiles: [dev]}")
	own := "encryptionsalt: v1:x\nconfig: {trading-platform:profiles: [dev], trading-platform:portOffset: 5}"

	require.NoError(t, w.MergeTracked("dev"))
	assert.NoFileExists(t, w.StackFile("dev"), "a stack that is not set up has no file of its own")

	write(t, w.StackFile("dev"), own)
	write(t, w.lastTracked("dev"), "config: {trading-platform:profiles: [dev]}")
	require.NoError(t, w.MergeTracked("dev"))
	assert.Equal(t, own, read(t, w.StackFile("dev")), "untouched while the tracked file is the same")

	write(t, w.trackedFile("dev"), "config: {trading-platform:profiles: [dev, workers]}")
	require.NoError(t, w.MergeTracked("dev"))
	want := "encryptionsalt: v1:x\nconfig: {trading-platform:profiles: [dev, workers], trading-platform:portOffset: 5}"
	assert.YAMLEq(t, want, read(t, w.StackFile("dev")))
	require.NoError(t, w.MergeTracked("dev"))
	assert.YAMLEq(t, want, read(t, w.StackFile("dev")))
	for _, path := range []string{w.StackFile("dev"), w.lastTracked("dev")} {
		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), info.Mode().Perm(), path)
	}
	assert.Equal(t, "config: {trading-platform:profiles: [dev, workers]}", read(t, w.trackedFile("dev")), "the clone stays clean")

	write(t, w.trackedFile("dev"), "config: [")
	err := w.MergeTracked("dev")
	require.ErrorContains(t, err, "merging "+w.trackedFile("dev")+" into "+w.StackFile("dev")+": yaml:")
	assert.YAMLEq(t, want, read(t, w.StackFile("dev")), "a file that cannot be read changes nothing")
}

func TestMergeTrackedOfAStackWithoutATrackedFile(t *testing.T) {
	w := clone(t)
	write(t, w.StackFile("mine"), "config: {a: 1}")
	require.NoError(t, w.MergeTracked("mine"))
	assert.Equal(t, "config: {a: 1}", read(t, w.StackFile("mine")))
}
