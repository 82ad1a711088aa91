package engine

import (
	"regexp"

	"github.com/distribution/reference"
)

// Registry is where an image is pulled from.
func Registry(image string) string {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return "its registry"
	}
	return reference.Domain(named)
}

// PullFix says what to do about an image that could not be pulled, by what the engine said of it. It is the same for
// two images where one remedy does for both.
func PullFix(image, said string) string {
	registry := Registry(image)
	for _, known := range []struct {
		said *regexp.Regexp
		fix  string
	}{
		{wantsLogin, "docker login " + registry + ", or correct the image's name (`images.<service>` in the stack's settings)"},
		{unknownImage, "name an image that " + registry + " has (`images.<service>` in the stack's settings)"},
		{otherPlatform, "name an image that is built for the engine's kind of processor (`images.<service>` in the stack's settings)"},
		{unreachable, "see to the way from the engine to " + registry + ", or, where no registry can be reached, make the images here with `platform init`"},
	} {
		if known.said.MatchString(said) {
			return known.fix
		}
	}
	return "docker pull " + image + " shows what stands in its way; an image that is on the engine is not pulled again"
}

var (
	wantsLogin    = regexp.MustCompile(`no basic auth credentials|unauthorized|denied`)
	unknownImage  = regexp.MustCompile(`manifest unknown|not found`)
	otherPlatform = regexp.MustCompile(`no matching manifest`)
	unreachable   = regexp.MustCompile(`connection refused|no such host|timeout|no route to host|context deadline exceeded`)
)
