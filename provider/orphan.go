package provider

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

const (
	// stackLabel and identityLabel say which stack a container or network belongs to; package plan sets them.
	stackLabel    = "trading-platform.stack"
	identityLabel = "trading-platform.id"
	// hashLabel holds a hash of everything that a container or network was created from.
	// It shows whether an object that no state knows matches the specification.
	hashLabel = "trading-platform.spec"
)

// hashRounds slows down guessing a password from the hash, because everyone who can list
// containers can read their labels. It costs a few milliseconds a container.
const hashRounds = 20_000

// specHash returns a hash of the parts that an object is created from.
func specHash(parts ...any) string {
	bytes, _ := json.Marshal(parts) // encoding plain structs cannot fail
	sum := sha256.Sum256(bytes)
	for range hashRounds {
		sum = sha256.Sum256(sum[:])
	}
	return hex.EncodeToString(sum[:])
}

// isOurs reports whether an existing object belongs to the stack of the wanted labels.
func isOurs(existing, wanted map[string]string) bool {
	stack := wanted[stackLabel]
	identity, labelled := existing[identityLabel]
	// Older versions set no identity, so their objects are recognised by the stack's name.
	return stack != "" && existing[stackLabel] == stack && (!labelled || identity == wanted[identityLabel])
}

// label is one label, as the official provider spells it.
type label struct {
	Label string `pulumi:"label"`
	Value string `pulumi:"value"`
}

func labelMap(labels []label) map[string]string {
	byName := map[string]string{}
	for _, l := range labels {
		byName[l.Label] = l.Value
	}
	return byName
}
