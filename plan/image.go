package plan

import (
	"path/filepath"
	"strings"

	"trading-platform/catalog"
	"trading-platform/settings"
)

// ImageLabel is the label with the ID of the image that a container was created from.
const ImageLabel = "trading-platform.image"

// image decides where a service's image comes from. In this order: a reference in
// `images`, the stock image, a build from the checkout of the platform, the reference app.
func (r *resolver) image(s catalog.Service) Image {
	switch reference := r.set.Images[s.Name]; {
	case reference != "":
		return Image{Reference: reference}
	case s.App == "":
		return Image{Reference: s.Image}
	case r.set.SourceDir != "":
		return Image{Build: r.build(s)}
	}
	r.reference[s.Name] = true
	return r.referenceImage()
}

// referenceImage returns the image of the reference app.
func (r *resolver) referenceImage() Image {
	if reference := r.set.Images[settings.Reference]; reference != "" {
		return Image{Reference: reference}
	}
	return Image{Build: &Build{
		Name:       r.tag("reference"),
		Context:    "apps/reference",
		Dockerfile: "apps/reference/Dockerfile",
		Push:       r.set.Registry != "",
	}}
}

// build describes the build of an app from the checkout, whose root is the build context,
// and the builds of the additional contexts that its Dockerfile uses.
func (r *resolver) build(s catalog.Service) *Build {
	b := &Build{
		Name:       r.tag(s.App),
		Context:    r.set.SourceDir,
		Dockerfile: r.set.SourceDir + "/apps/" + s.App + "/Dockerfile",
		Args:       map[string]string{},
		Push:       r.set.Registry != "",
	}
	for _, v := range s.BuildArgs {
		b.Args[v.Name], _ = r.value(s, v)
	}
	for _, v := range s.BuildContexts {
		folder, _ := r.value(s, v)
		if !filepath.IsLocal(folder) {
			r.faults.Add(settings.Project+":"+v.From[0], "copy it into the checkout, or build the image with docker build --build-context "+
				v.Name+"="+folder+" and name it: "+settings.SetCommand(r.set.Stack, "--path images."+s.Name, "<reference>"),
				"%s is not the relative path of a folder in the checkout", folder)
		}
		b.Contexts = append(b.Contexts, Build{
			// The name that the Dockerfile copies from. BuildKit uses an image of that name
			// if the build has no such context: see docs/decisions/006.
			Name: v.Name + ":latest",
			// The context is the whole checkout as well, so that both images are built whenever
			// one is: another stack may have built an image of the same name since.
			Context: r.set.SourceDir, Dockerfile: "infra/build-context.Dockerfile",
			Args: map[string]string{FolderArg: filepath.ToSlash(filepath.Clean(folder))},
		})
	}
	return b
}

// tag returns the name of an image that this stack builds. Image names are lower case, unlike container names.
func (r *resolver) tag(app string) string {
	name := strings.ToLower(r.set.NamePrefix) + "/" + app + ":local"
	if r.set.Registry != "" {
		name = r.set.Registry + "/" + name
	}
	return name
}
