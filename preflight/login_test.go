package preflight

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// What PostgreSQL 15 wrote for the passwords "trader" and, later, "new", with the bytes of a row around it.
const (
	trader = "\x00trader\x00\x00SCRAM-SHA-256$4096:Ig5YLEHgi4M88vbIaaXgAw==$nTVofyb+x3xwRIwjlRBjYwEEYCzEC0rhVPt7dT7IhmI=:pG8K6VVC6yznX/rtJ/CcVEUmL9MWy87wMYdXsve7jas=\x00"
	newer  = "\x00trader\x00\x00SCRAM-SHA-256$4096:ElcAJuuX4PXRs1DOpKSyow==$DhOVC147hJi61VeY1W2mHbLa8Fqs/zwO6McSoFZgdaE=:HX6H9TkqO8onqk6gUgVvbtWyBmx18HeF4plnY8TaEsI=\x00"
)

func TestTakesPassword(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		roles, password string
		want            bool
	}{
		"the password it was made with": {trader, "trader", true},
		"another":                       {trader, "Trader", false},
		"a changed one, with the old row still there": {trader + newer, "new", true},
		"none of two":                        {trader + newer, "newer", false},
		"a cluster without such passwords":   {"md5abcdef", "trader", true},
		"no cluster":                         {"", "trader", true},
		"something that only looks like one": {"SCRAM-SHA-256$4096:c2FsdA==$c2hvcnQ=:c2hvcnQ=", "trader", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, c.want, takesPassword([]byte(c.roles), c.password))
		})
	}
}
