package workspace

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/common/util/cmdutil"
	"golang.org/x/term"

	"trading-platform/catalog"
	"trading-platform/certs"
	"trading-platform/preflight"
	"trading-platform/settings"
	"trading-platform/stack"
)

// publicPassword is the variable whose public default must not be used where makeSecrets finds a secured database.
const publicPassword = "POSTGRES_PASSWORD" //nolint:gosec // a name

// makeSecrets generates the secrets that the stack needs. It asks for values that cannot
// be generated, but only if there is a terminal. A database that a secured stack has used
// never gets a public default as its password.
func (r *run) makeSecrets(ctx context.Context) error {
	p, _, _ := r.Resolve(r.stack)
	if p == nil {
		return nil
	}
	needed := slices.Clone(p.Unset)
	isUnset := slices.ContainsFunc(needed, func(v catalog.Variable) bool { return v.Name == publicPassword })
	if !isUnset {
		secured, err := preflight.SecuredDatabase(ctx, r.engine, p)
		if err != nil {
			return err
		}
		if secured {
			r.say("a secured stack has used this database, so stack " + r.stack + " gets a generated password for it")
			needed = append(needed, catalog.Variable{Name: publicPassword})
		}
	}
	var made []string
	for _, variable := range needed {
		value := variable.Initial
		switch {
		case variable.Ask:
			var err error
			if value, err = ask(variable.Name); err != nil {
				return err
			}
		case value != "":
		case strings.HasSuffix(variable.Name, "_PASSWORD"):
			value = base64.URLEncoding.EncodeToString([]byte(RandomSecret()))[:32] // safe in a URL and in a shell
		default:
			value = RandomSecret()
		}
		if value == "" {
			fix := settings.SetCommand(r.stack, variable.Name, "<value>")
			if catalog.IsSecret(variable.Name, "") {
				fix = settings.SetSecretCommand(r.stack, variable.Name)
			}
			r.say("you still have to set: " + fix)
			continue
		}
		// On standard input, because every user can see the arguments of a process.
		set := []string{"config", "set", "-s", r.stack, "--config-file", r.StackFile(r.stack), "--secret", variable.Name}
		if err := r.runCLI(ctx, strings.NewReader(value), set...); err != nil {
			return err
		}
		made = append(made, variable.Name)
	}
	if len(made) > 0 {
		r.say(fmt.Sprintf("generated secrets of stack %[1]s: %[2]s (to see one: pulumi config get -s %[1]s <NAME>)", r.stack, strings.Join(made, ", ")))
	}
	return nil
}

// makeCerts creates the certificates of a stack that has nginx, and renews them before they expire.
func (r *run) makeCerts(context.Context) error {
	_, set, _ := r.Resolve(r.stack)
	if set == nil || !stack.NeedsCerts(set) {
		return nil
	}
	if set.CertsDir == "" {
		set.CertsDir = r.CertsDir(r.stack)
		r.file.set("certsDir", set.CertsDir)
		if err := r.save(r.stack, r.file); err != nil {
			return err
		}
	}
	var clients []string
	for _, p := range catalog.Profiles {
		if p.ClientCerts && slices.Contains(set.Profiles, p.Name) {
			clients = []string{"admin"}
		}
	}
	report, err := certs.Ensure(set.CertsDir, certs.Options{Stack: r.stack, Names: set.ServerNames(), Clients: clients})
	if err == nil && len(report.Files) > 0 {
		r.say(report.String())
	}
	return err
}

// takeOver asks once whether this stack takes over the data of an old Compose stack, and
// records the answer. Without a terminal, the Pulumi program reports the settings for it.
func (r *run) takeOver(ctx context.Context) error {
	if !isTerminal() {
		return nil
	}
	p, set, _ := r.Resolve(r.stack)
	if p == nil {
		return nil
	}
	found, err := preflight.OldCompose(ctx, r.engine, p, set)
	if err != nil {
		return err
	}
	for _, old := range found {
		r.say(fmt.Sprintf("the old Compose project %s has data in %s and %d more volumes", old.Project, old.Volumes["pgdata"], len(old.Volumes)-1))
		answer, err := ask("Take them over, with their data? yes or no")
		if err != nil {
			return err
		}
		if strings.HasPrefix(strings.ToLower(answer), "y") {
			r.file.set("volumes", old.Volumes)
			return r.save(r.stack, r.file)
		}
		ignored, _ := r.file.get("ignoreCompose").([]any)
		r.file.set("ignoreCompose", append(ignored, old.Project))
		if err := r.save(r.stack, r.file); err != nil {
			return err
		}
	}
	return nil
}

// ask reads a value from the terminal, without echo if it is a secret. It returns "" if there is no terminal, and an error if the
// user presses Ctrl-C.
func ask(variable string) (string, error) {
	if !isTerminal() {
		return "", nil
	}
	read := cmdutil.ReadConsole
	if catalog.IsSecret(variable, "") {
		read = cmdutil.ReadConsoleNoEcho
	}
	answer, err := read(variable)
	if err != nil {
		return "", fmt.Errorf("%s: not answered. Fix: run this command again", variable)
	}
	return strings.TrimSpace(answer), nil
}

func isTerminal() bool { return term.IsTerminal(int(os.Stdin.Fd())) }
