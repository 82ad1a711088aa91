package catalog

import "slices"

// Values and groups of variables that several services share.
const (
	alpacaURL  = "https://paper-api.alpaca.markets"
	modelsDir  = "/app/data/models"
	resultsDir = "/app/data/backtest_results"
	certsDir   = "/etc/nginx/certs"

	// Keys of the dev console. They are public, as this file is: see LocalOnly.
	devSigningKeys = "01:0000000000000000000000000000000000000000000000000000000000000000"
	devSessionKey  = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
)

var (
	database = fixed("DATABASE_URL=${database_url}")
	// Without a password, Redis accepts every client.
	redisPassword = optional("REDIS_PASSWORD")
	redisHost     = join(fixed("REDIS_HOST=redis", "REDIS_PORT=${port:redis}"), redisPassword)
	redisParts    = join(redisHost, fixed("REDIS_DB=0"))
	auth0Audience = optional("AUTH0_AUDIENCE=https://api.trading-platform.local")
)

// Probes that request the service's health over HTTP: with BusyBox' wget in the stock
// images, and with curl in the platform's own.
var (
	wget = []string{"CMD", "wget", "-q", "-O", "/dev/null", "${probe_url}"}
	curl = []string{"CMD", "curl", "-fsS", "-o", "/dev/null", "${probe_url}"}
)

// rootSetup lists the capabilities of a program that starts as root, changes the owner of its
// folders, and then switches to another user.
var rootSetup = []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}

// join concatenates groups of variables. A variable that occurs again replaces the
// earlier one in its place.
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
