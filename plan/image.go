package plan

import (
	"strings"

	"trading-platform/catalog"
	"trading-platform/settings"
)

// image gives where a service's image comes from, and whether that is the
// reference app: a reference in `images`, a checkout of the platform, the
// reference app; a stock image needs neither.
func (r *resolver) image(s catalog.Service) (Image, bool) {
	switch reference := r.set.Images[s.Name]; {
	case reference != "":
		return Image{Reference: reference}, false
	case s.App == "":
		return Image{Reference: s.Image}, false
	case r.set.SourceDir != "":
		return Image{Build: r.build(s)}, false
	case r.set.Images[settings.Reference] != "":
		return Image{Reference: r.set.Images[settings.Reference]}, true
	}
	return Image{Build: &Build{
		Name:       r.tag("reference"),
		Context:    "apps/reference",
		Dockerfile: "apps/reference/Dockerfile",
	}}, true
}

// build is the build of an app from the checkout, whose root is the context.
func (r *resolver) build(s catalog.Service) *Build {
	b := &Build{
		Name:       r.tag(s.App),
		Context:    r.set.SourceDir,
		Dockerfile: r.set.SourceDir + "/apps/" + s.App + "/Dockerfile",
		Args:       map[string]string{},
	}
	for _, v := range s.BuildArgs {
		b.Args[v.Name], _ = r.value(v)
	}
	return b
}

// tag names an image that this stack builds. Image names are lower case, unlike container names.
func (r *resolver) tag(app string) string {
	return strings.ToLower(r.set.NamePrefix) + "/" + app + ":local"
}
