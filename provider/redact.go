package provider

import (
	"net/url"
	"slices"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/property"
)

// minSecret is the length of the shortest secret that is masked. A shorter one could be part of
// ordinary words, and one secret variable makes Pulumi treat a whole list as secret.
const minSecret = 6

// redact masks the resource's secrets in a text, in case a program or a build prints them.
func (c call) redact(text string) string {
	secrets := secretTexts(property.New(c.inputs), false)
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) }) // one can be a part of another
	for _, secret := range secrets {
		if len(secret) >= minSecret {
			text = strings.ReplaceAll(text, secret, "[secret]")
		}
	}
	return text
}

// secretTexts are the secrets in a property: values of variables, passwords in URLs, lines of files.
func secretTexts(v property.Value, inside bool) (texts []string) {
	inside = inside || v.Secret()
	switch {
	case v.IsArray():
		for _, element := range v.AsArray().All {
			texts = append(texts, secretTexts(element, inside)...)
		}
	case v.IsMap():
		for _, entry := range v.AsMap().All {
			texts = append(texts, secretTexts(entry, inside)...)
		}
	case v.IsString() && inside:
		for line := range strings.Lines(v.AsString()) {
			text := strings.TrimSpace(line)
			if _, value, isVariable := strings.Cut(text, "="); isVariable {
				text = value
			}
			texts = append(texts, text)
			if u, err := url.Parse(text); err == nil {
				password, _ := u.User.Password()
				texts = append(texts, password)
			}
		}
	}
	return texts
}
