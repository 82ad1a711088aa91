package fault_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/fault"
)

func TestErrorText(t *testing.T) {
	for name, test := range map[string]struct {
		list fault.List
		want string
	}{
		"one": {
			fault.List{{Where: "port 80", What: "taken", Fix: "stop it"}},
			"One thing is wrong, and nothing was changed:\n  1. port 80: taken\n     Fix: stop it",
		},
		"several are numbered": {
			fault.List{{Where: "a", What: "wrong", Fix: "x"}, {Where: "b", What: "missing", Fix: "y"}},
			"2 things are wrong, and nothing was changed:\n  1. a: wrong\n     Fix: x\n  2. b: missing\n     Fix: y",
		},
		"without a fix": {
			fault.List{{Where: "a", What: "wrong"}},
			"One thing is wrong, and nothing was changed:\n  1. a: wrong",
		},
	} {
		t.Run(name, func(t *testing.T) {
			assert.EqualError(t, test.list.Err(), test.want)
		})
	}
}

func TestAnEmptyListIsNoError(t *testing.T) {
	var list fault.List
	assert.NoError(t, list.Err())
	assert.NoError(t, fault.List{}.Err())
}

func TestAddFormatsWhatIsWrongAndNothingElse(t *testing.T) {
	var list fault.List
	list.Add("50% of it", "100% sure", "%d of %d", 1, 2)
	assert.Equal(t, fault.List{{Where: "50% of it", What: "1 of 2", Fix: "100% sure"}}, list)
}

func TestGather(t *testing.T) {
	first := fault.Fault{Where: "a", What: "x"}
	second := fault.Fault{Where: "b", What: "y"}
	foreign := errors.New("the engine went away")
	for name, test := range map[string]struct {
		err  error
		left error
		want fault.List
	}{
		"nothing":                   {nil, nil, fault.List{first}},
		"a list":                    {fault.List{second}.Err(), nil, fault.List{first, second}},
		"a list inside of an error": {fmt.Errorf("resolving: %w", fault.List{second}), nil, fault.List{first, second}},
		"another error comes back":  {foreign, foreign, fault.List{first}},
	} {
		t.Run(name, func(t *testing.T) {
			list := fault.List{first}
			require.Equal(t, test.left, list.Gather(test.err))
			assert.Equal(t, test.want, list)
		})
	}
}

func TestDidYouMean(t *testing.T) {
	known := []string{"profiles", "portOffset", "POSTGRES_PASSWORD", "redis"}
	for word, want := range map[string]string{
		"profile":          "; did you mean profiles?",
		"portoffset":       "; did you mean portOffset?",
		"POSTGRES_PASWORD": "; did you mean POSTGRES_PASSWORD?",
		"rediss":           "; did you mean redis?",
		"x":                "",
		"somethingElse":    "",
		"":                 "",
	} {
		t.Run(word, func(t *testing.T) {
			assert.Equal(t, want, fault.DidYouMean(word, known))
		})
	}
}
