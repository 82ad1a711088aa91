package engine

import (
	"regexp"
	"strings"

	"github.com/distribution/reference"
)

// Registry returns the host name of the registry that an image is pulled from.
func Registry(image string) string {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return "its registry"
	}
	return reference.Domain(named)
}

// pullFixes are what to do about an image that could not be pulled from a registry, by the engine's error message.
var pullFixes = []struct {
	message *regexp.Regexp
	fix     string
}{
	{regexp.MustCompile(`no basic auth credentials|unauthorized|denied`),
		"docker login $registry, or correct the image's name (`images.<service>` in the stack's settings)"},
	{regexp.MustCompile(`manifest unknown|not found`),
		"name an image that $registry has (`images.<service>` in the stack's settings)"},
	{regexp.MustCompile(`no matching manifest`),
		"name an image that is built for the engine's architecture (`images.<service>` in the stack's settings)"},
	{regexp.MustCompile(`connection refused|no such host|timeout|no route to host|context deadline exceeded`),
		"check the engine's connection to $registry, or, if no registry can be reached, build the images here with `platform init`"},
}

// PullFix returns what to do about an image that could not be pulled, given the engine's error message. It is the same
// for two images if one remedy is enough for both.
func PullFix(image, message string) string {
	for _, known := range pullFixes {
		if known.message.MatchString(message) {
			return strings.ReplaceAll(known.fix, "$registry", Registry(image))
		}
	}
	return "docker pull " + image + " shows the cause; an image that is on the engine is not pulled again"
}
