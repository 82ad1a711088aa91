package settings

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/distribution/reference"
	"github.com/joho/godotenv"

	"trading-platform/catalog"
	"trading-platform/engine"
	"trading-platform/fault"
)

// decoder reads typed values from a source. It records an invalid value as a fault and
// continues with a default, so that the faults after it are found as well.
type decoder struct {
	Source
	known  []string // the keys that were read; no others exist
	faults fault.List
}

// fault records what is wrong with a key.
func (d *decoder) fault(key, fix, what string, args ...any) {
	d.faults.Add(Project+":"+key, fix, what, args...)
}

// invalid records a value that is not what the setting needs; want says what it needs.
func (d *decoder) invalid(key, value, want, fix string) {
	if setting, _, _ := strings.Cut(key, "."); d.Secret[setting] {
		value = Hidden
	}
	d.fault(key, fix, "%q is not %s", value, want)
}

// set and remove return commands, for use as a fix.
func (d *decoder) set(key, value string) string { return SetCommand(d.Stack, key, value) }
func (d *decoder) remove(key string) string     { return "pulumi config rm -s " + d.Stack + " " + key }

// text reads a value. The fallback replaces an empty one.
func (d *decoder) text(key, fallback string) string {
	d.known = append(d.known, key)
	return cmp.Or(strings.TrimSpace(d.Config[key]), fallback)
}

// value reads a value that parse returns without an error, and that every rule accepts. The fallback replaces an empty or
// invalid one; if it is empty itself, the setting is optional.
func value[T any](d *decoder, key, fallback, want string, parse func(string) (T, error), rules ...func(T) bool) T {
	text := d.text(key, fallback)
	v, ok := parsed(text, parse, rules)
	if ok || text == "" {
		return v
	}
	fix := d.set(key, fallback)
	if fallback == "" {
		fix = d.set(key, "<value>") + ", or: " + d.remove(key)
	}
	d.invalid(key, text, want, fix)
	v, _ = parse(fallback)
	return v
}

// parsed returns a value, and whether parse returns it without an error and every rule accepts it.
func parsed[T any](text string, parse func(string) (T, error), rules []func(T) bool) (T, bool) {
	v, err := parse(text)
	return v, err == nil && !slices.ContainsFunc(rules, func(accepts func(T) bool) bool { return !accepts(v) })
}

// entries reads a map by known names, as value reads one value. example is what the fix sets. Empty entries do not count.
func entries[T any](
	d *decoder, key, kind string, known []string, want, example string, parse func(string) (T, error), rules ...func(T) bool,
) map[string]T {
	out := map[string]T{}
	for name, text := range d.scalars(key) {
		d.checkName(key, kind, name, known)
		v, ok := parsed(text, parse, rules)
		switch {
		case text == "":
		case ok:
			out[name] = v
		default:
			d.invalid(key+"."+name, text, want, d.set("--path "+key+"."+name, example))
		}
	}
	return out
}

// asIs is the parse function of a text.
func asIs(text string) (string, error) { return text, nil }

// withoutSlash is the parse function of a folder's path.
func withoutSlash(path string) (string, error) { return strings.TrimRight(path, "/"), nil }

// between is the rule of a number.
func between(lowest, highest int) func(int) bool {
	return func(n int) bool { return lowest <= n && n <= highest }
}

// isSubnet is the rule of the edge network: it has room for the gateway, nginx and its upstreams.
func isSubnet(p netip.Prefix) bool { return p.Addr().Is4() && p.Bits() <= 28 && p == p.Masked() }

// isPrefix is the rule of the first part of every name on the engine. It leaves room for the rest of the name.
func isPrefix(name string) bool { return enginePrefix.MatchString(name) && len(name) <= 63 }

// isEngineFolder is the rule of a folder on the engine's host, which a mount can name.
func isEngineFolder(path string) bool {
	return strings.HasPrefix(path, "/") && !strings.Contains(path, ":")
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func parseImage(text string) (string, error) {
	_, err := reference.ParseNormalizedNamed(text)
	return text, err
}

// parseRegistry is the parse function of what stands before the slash and the name of a pushed image.
func parseRegistry(text string) (string, error) {
	_, err := parseImage(text + "/app")
	return text, err
}

func parseEngine(text string) (ref engine.Ref, err error) {
	err = json.Unmarshal([]byte(text), &ref)
	return ref, err
}

// isEngine is the rule of the engine that `platform init` recorded: it has both an ID and a host, or neither.
func isEngine(ref engine.Ref) bool { return (ref.ID == "") == (ref.Host == "") }

// path is the parse function of a path on this machine.
func (d *decoder) path(text string) (string, error) { return d.Absolute(text), nil }

// nginxAddress reads nginx's address. The default is the subnet's tenth.
func (d *decoder) nginxAddress(subnet netip.Prefix) netip.Addr {
	gateway := subnet.Addr().Next()
	tenth := gateway
	for range 9 {
		tenth = tenth.Next()
	}
	want := fmt.Sprintf("an address that a container can have in the subnet %s (its first is the gateway)", subnet)
	return value(d, "nginxAddress", tenth.String(), want, netip.ParseAddr, func(a netip.Addr) bool {
		return subnet.Contains(a) && a != subnet.Addr() && a != gateway
	})
}

// structured reads a list or a map, which Pulumi passes as JSON. The fix removes any other value
// first, because Pulumi cannot set a path inside of it.
func structured[T any](d *decoder, key, want, path, example string) (v T) {
	text := d.text(key, "")
	if text == "" {
		return v
	}
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		d.invalid(key, text, want, d.remove(key)+" && "+d.set("--path "+path, example))
		return *new(T)
	}
	return v
}

// list reads a list of names. example is a name that the fix sets.
func (d *decoder) list(key, kind, example string) []string {
	items := structured[[]string](d, key, "a list of "+kind+" names", "'"+key+"[0]'", example)
	slices.Sort(items)
	return slices.Compact(items)
}

// names reads a list of known names.
func (d *decoder) names(key, kind string, known []string) []string {
	names := d.list(key, kind, known[0])
	for _, name := range names {
		d.checkName(key, kind, name, known)
	}
	return names
}

func (d *decoder) checkName(key, kind, name string, known []string) {
	if !slices.Contains(known, name) {
		d.fault(key, "use one of "+strings.Join(known, ", "), "no %s %q%s", kind, name, fault.DidYouMean(name, known))
	}
}

// object is a map of a setting. Its values are read by plain.
type object = map[string]json.RawMessage

// plain returns the strings, numbers and booleans of a map as texts. It records any other value; null is empty.
func (d *decoder) plain(key string, from object) map[string]string {
	out := map[string]string{}
	for name, raw := range from {
		var text string
		switch {
		case raw[0] == '"':
			_ = json.Unmarshal(raw, &text) // a part of valid JSON
		case raw[0] == '{' || raw[0] == '[':
			d.fault(key+"."+name, d.set("--path "+key+"."+name, "<value>"), "is not a plain value")
			continue
		case string(raw) != "null":
			text = string(raw)
		}
		out[name] = text
	}
	return out
}

func (d *decoder) scalars(key string) map[string]string {
	return d.plain(key, structured[object](d, key, "a map", key+".<name>", "<value>"))
}

var (
	variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	upperCase    = regexp.MustCompile(`^[A-Z][A-Z0-9_]*$`)
	// What the engine accepts in names of containers and, in lower case, of images.
	enginePrefix = regexp.MustCompile(`^[a-zA-Z0-9]+((\.|_|__|-)[a-zA-Z0-9]+)*$`)
)

func (d *decoder) serviceEnv(key string) map[string]map[string]Value {
	out := map[string]map[string]Value{}
	all := structured[map[string]object](d, key, "a map of services to maps of variables", key+".<service>.<NAME>", "<value>")
	for service, variables := range all {
		d.checkName(key, "service", service, catalog.ServiceNames())
		out[service] = map[string]Value{}
		for name, text := range d.plain(key+"."+service, variables) {
			if !variableName.MatchString(name) {
				d.fault(key+"."+service+"."+name, d.remove("--path "+key+"."+service+"."+name), "is not the name of a variable")
				continue
			}
			out[service][name] = Value{Text: text, Secret: d.Secret[key]}
		}
		d.checkValues(key+"."+service+".", out[service])
	}
	return out
}

// variables reads the user's variables from the dotenv file and from the stack config,
// which takes precedence. A dotenv file may contain variables that no service uses; the
// config may not.
func (d *decoder) variables() map[string]Value {
	out := map[string]Value{}
	known := catalog.UserVariables()
	var file map[string]string
	if path := d.Absolute(d.text("envFile", "")); path != "" {
		var err error
		switch file, err = godotenv.Read(path); {
		case errors.Is(err, fs.ErrNotExist):
			d.fault("envFile", "write it with one NAME=value per line, or: "+d.remove("envFile"), "file %s does not exist", path)
		case err != nil:
			// The library's error quotes the line that it cannot read, which may contain a secret.
			d.fault("envFile", "write one NAME=value per line, and close all quotes", "%s cannot be read as a dotenv file", path)
		}
	}
	env := d.scalars("env")
	for name := range env {
		if !slices.Contains(known, name) {
			d.fault("env."+name, "to give a service a variable of your own, set serviceEnv.<service>."+name,
				"no service uses this variable%s", fault.DidYouMean(name, known))
		}
	}
	for _, name := range known {
		for _, v := range []Value{{d.Config[name], d.Secret[name]}, {env[name], d.Secret["env"]}, {file[name], false}} {
			if v.Text != "" {
				out[name] = v
				break
			}
		}
	}
	d.known = append(d.known, known...)
	d.checkValues("", out)
	return out
}

// maxVariableSize is the largest variable that Linux accepts, including its name, the equals sign and the final NUL.
const maxVariableSize = 128 << 10

// singleLine lists the variables whose value becomes part of one line of another program's input.
var singleLine = []string{"POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB", "REDIS_PASSWORD"}

// checkValues records values that cannot be passed to a container. path is the prefix of
// the variables' keys, empty for variables of the stack config. No value is printed.
func (d *decoder) checkValues(path string, values map[string]Value) {
	for name, value := range values {
		var what string
		switch text := value.Text; {
		case strings.ContainsRune(text, 0):
			what = "contains a NUL character, which a variable cannot"
		case !utf8.ValidString(text):
			what = "is not valid UTF-8, which Pulumi's config requires"
		case len(name)+len(text)+2 > maxVariableSize:
			what = "is longer than the 128 KiB that Linux allows for a variable"
		case strings.ContainsAny(text, "\r\n") && slices.Contains(singleLine, name):
			what = "contains a line break, but must be a single line"
		default:
			continue
		}
		key := path + name
		if path != "" {
			key = "--path " + key
		}
		d.fault(path+name, SetSecretCommand(d.Stack, key), "%s", what)
	}
}

// unknown records the keys that no setting has.
func (d *decoder) unknown() {
	for key := range d.Config {
		if slices.Contains(d.known, key) {
			continue
		}
		kind := "setting"
		if upperCase.MatchString(key) {
			kind = "variable"
		}
		d.fault(key, d.remove(key), "no such %s%s", kind, fault.DidYouMean(key, d.known))
	}
}

// conflicts records profiles that cannot be in one stack.
func (d *decoder) conflicts(profiles []string) {
	for _, p := range catalog.Profiles {
		for other, why := range p.Conflicts {
			if slices.Contains(profiles, p.Name) && slices.Contains(profiles, other) {
				d.fault("profiles", fmt.Sprintf(
					"use two stacks, one of them with another namePrefix, portOffset and subnet: pulumi up -s %s, pulumi up -s %s", p.Name, other),
					"%s and %s cannot be in one stack: %s", p.Name, other, why)
			}
		}
	}
}
