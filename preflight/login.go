package preflight

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"regexp"
	"strconv"

	"github.com/moby/moby/api/types/container"

	"trading-platform/plan"
	"trading-platform/settings"
)

// scramVerifier is how PostgreSQL keeps a password: iterations, salt, stored key
// and server key, the last three in base64 (RFC 5803).
var scramVerifier = regexp.MustCompile(`SCRAM-SHA-256\$([0-9]+):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):[A-Za-z0-9+/=]+`)

// rolesFile is where a cluster keeps its roles: the file of pg_authid, which has
// this name from initdb on, unless the table was rewritten by VACUUM FULL.
const rolesFile = "global/1260"

// postgresLogin finds a POSTGRES_USER or POSTGRES_PASSWORD that the cluster in the
// volume would not take. The image uses these variables for a new cluster only, so
// a stack with others comes up and nobody can log in.
func (c *check) postgresLogin(s plan.Service, containers []container.Summary) {
	user, password := s.Value("POSTGRES_USER"), s.Value("POSTGRES_PASSWORD")
	roles, volume := c.readData(s, containers, rolesFile)
	empty := "; or start with an empty database: docker volume create " + volume + "_new && " + c.config("--path volumes.pgdata", volume+"_new")
	if len(roles) > 0 && user != settings.Hidden && !bytes.Contains(roles, []byte(user+"\x00")) {
		c.faults.Add(settings.Project+":POSTGRES_USER",
			c.config("POSTGRES_USER", "<the one it was made with>")+empty,
			"is %s, a role that the database in volume %s does not have, so no service could log in", user, volume)
		return
	}
	if password == "" || password == settings.Hidden || takesPassword(roles, password) {
		return
	}
	c.faults.Add(settings.Project+":POSTGRES_PASSWORD",
		settings.SetSecret(c.plan.Stack, "POSTGRES_PASSWORD")+" with the one it was made with; or change the database's, while the stack runs with the old one: docker exec -it "+
			s.Containers[0]+" psql -U "+user+" -c '\\password' -c CHECKPOINT"+empty,
		"is not the password that the database in volume %s was made with, so no service could log in", volume)
}

// takesPassword tells whether a roles file has a verifier that fits the password. A
// file without any, such as one of a cluster with other kinds of password, tells
// nothing, and counts as one that does. An old version of a row may fit as well:
// better to miss a wrong password than to refuse a right one.
func takesPassword(roles []byte, password string) bool {
	found := scramVerifier.FindAllSubmatch(roles, -1)
	for _, m := range found {
		iterations, err := strconv.Atoi(string(m[1]))
		salt, err2 := base64.StdEncoding.DecodeString(string(m[2]))
		stored, err3 := base64.StdEncoding.DecodeString(string(m[3]))
		if err != nil || err2 != nil || err3 != nil || len(stored) != sha256.Size {
			return true // not what it looks like
		}
		salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
		if err != nil {
			return true
		}
		client := hmac.New(sha256.New, salted)
		client.Write([]byte("Client Key"))
		key := sha256.Sum256(client.Sum(nil))
		if bytes.Equal(key[:], stored) {
			return true
		}
	}
	return len(found) == 0
}
