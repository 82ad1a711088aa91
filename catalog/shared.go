package catalog

import "slices"

// Values and groups of variables that several services share.
const (
	redisURL   = "${redis_url}"
	alpacaURL  = "https://paper-api.alpaca.markets"
	modelsDir  = "/app/data/models"
	resultsDir = "/app/data/backtest_results"
	certsDir   = "/etc/nginx/certs"

	// Keys of the dev console, as public as this file: see LocalOnly.
	devSigningKeys = "01:0000000000000000000000000000000000000000000000000000000000000000"
	devSessionKey  = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
)

var (
	database = []Variable{fixed("DATABASE_URL", "${database_url}")}
	// A Redis without a password asks for none.
	redisPassword = optional("REDIS_PASSWORD", "")
	redisHost     = []Variable{fixed("REDIS_HOST", "redis"), fixed("REDIS_PORT", "${port:redis}"), redisPassword}
	redisParts    = join(redisHost, []Variable{fixed("REDIS_DB", "0")})
	auth0         = []Variable{
		optional("AUTH0_DOMAIN", ""),
		optional("AUTH0_CLIENT_ID", ""),
		optional("AUTH0_CLIENT_SECRET", ""),
	}
	auth0Audience = optional("AUTH0_AUDIENCE", "https://api.trading-platform.local")
)

// Probes that ask for the service's health over HTTP: with the busybox of the stock
// images, and with the curl of the platform's own.
var (
	wget = []string{"CMD", "wget", "-q", "-O", "/dev/null", "${probe_url}"}
	curl = []string{"CMD", "curl", "-fsS", "-o", "/dev/null", "${probe_url}"}
)

// rootSetup are the capabilities of a program that starts as root, takes over its folders and goes on as another user.
var rootSetup = []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}

// join puts groups of variables together; of two with one name the later counts,
// in the place of the earlier.
func join(groups ...[]Variable) []Variable {
	var all []Variable
	for _, v := range slices.Concat(groups...) {
		same := func(o Variable) bool { return o.Name == v.Name }
		if i := slices.IndexFunc(all, same); i >= 0 {
			all[i] = v
		} else {
			all = append(all, v)
		}
	}
	return all
}
