//go:build live

package test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"image/png"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"trading-platform/plan"
)

// TestConsole uses the dev stack's console as a person does, in Chromium, with the keyboard alone.
func TestConsole(t *testing.T) {
	t.Parallel()
	s := newStack(t, "dev", nil)
	s.up()
	console := s.url(8080, "")
	b := newBrowser(t)
	all := len(baseServices) + len(devServices)
	allHealthy := fmt.Sprintf("All %d services are healthy.", all)

	t.Run("a wrong password is refused", func(t *testing.T) {
		b := b.in(t)
		b.do(chromedp.Navigate(console+"/"), chromedp.WaitVisible("#username"))
		keepShot(t, "console-login", get(b, chromedp.CaptureScreenshot()))
		b.keys("admin", kb.Tab, "not the password", kb.Enter)
		b.do(chromedp.WaitVisible("#fault"))
		assert.Equal(t, console+"/login", b.text("location.href"))
		b.do(chromedp.Navigate(console+"/"), chromedp.WaitVisible("#username"))
		assert.Equal(t, console+"/login", b.text("location.href"), "still outside")
		response, err := http.Get(console + "/api/stack")
		require.NoError(t, err)
		_ = response.Body.Close()
		assert.Equal(t, http.StatusUnauthorized, response.StatusCode)
	})
	t.Run("the right one leads to the live state of every service", func(t *testing.T) {
		b := b.in(t)
		b.keys("admin", kb.Tab, "admin", kb.Tab)
		assert.Equal(t, "signin", b.text("document.activeElement.id"))
		b.keys(kb.Enter)
		b.do(chromedp.WaitVisible("#services"))
		b.loaded()
		assert.Equal(t, console+"/", b.text("location.href"))
		b.shows("#summary", allHealthy, 15*time.Second)
		for _, service := range append(baseServices, devServices...) {
			assert.Equal(t, "healthy", b.text(`document.querySelector('[data-service="`+service+`"]')?.dataset.state ?? "no such row"`), service)
		}
		assert.Equal(t, strconv.Itoa(all), b.text(`String(document.querySelectorAll("[data-service]").length)`))
	})
	t.Run("it links to Prometheus", func(t *testing.T) {
		link := b.in(t).text(`[...document.querySelectorAll("nav a")].find(a => a.textContent === "prometheus")?.href ?? "no such link"`)
		assert.Equal(t, s.url(9090, "/"), link)
		response, err := http.Get(link)
		require.NoError(t, err)
		_ = response.Body.Close()
		assert.Equal(t, http.StatusOK, response.StatusCode)
	})
	t.Run("every control is reached with the keyboard, and shows it", func(t *testing.T) {
		b := b.in(t)
		b.do(chromedp.Navigate(console+"/"), chromedp.WaitVisible("#services"))
		var reached []string
		for range 40 {
			b.keys(kb.Tab)
			at := b.text(`(() => { const e = document.activeElement; return e === document.body ? "" : (e.id || e.className || e.textContent) })()`)
			if at == "" || len(reached) > 0 && at == reached[0] {
				break
			}
			if b.text(`getComputedStyle(document.activeElement).outlineStyle`) == "none" {
				t.Errorf("%s has no visible focus", at)
			}
			reached = append(reached, at)
		}
		assert.Equal(t, "skip", reached[0], "the way past the header")
		assert.Subset(t, reached, []string{"prometheus", "queue", "text", "send"})
		assert.Contains(t, reached, "signout")
	})
	t.Run("a job posted on the page comes back with its result", func(t *testing.T) {
		b := b.in(t)
		b.do(chromedp.Focus("#text"))
		b.keys("margin call", kb.Enter)
		b.shows("#jobs", fmt.Sprintf("%x", sha256.Sum256([]byte("margin call"))), 15*time.Second)
		b.shows("#jobs", "completed", time.Second)
	})
	t.Run("light and dark, narrow and wide", func(t *testing.T) { testConsoleLooks(t, b.in(t)) })

	t.Run("who is affected when redis is away, and that it is back", func(t *testing.T) {
		b := b.in(t)
		began := time.Now()
		_, err := engine.ContainerStop(t.Context(), s.prefix+"_redis", client.ContainerStopOptions{})
		require.NoError(t, err)
		b.shows("#summary", "redis is down.", 15*time.Second)
		t.Logf("shown %.1f s after docker stop began", time.Since(began).Seconds())
		affected := "Affected: " + strings.Join(dependents(s.plan(), "redis"), ", ") + "."
		b.shows("#summary", affected, 5*time.Second)
		b.shows("#service-execution_gateway .state", "because of redis", 15*time.Second)
		keepShot(t, "console-redis-down", get(b, chromedp.CaptureScreenshot()))
		assert.Equal(t, "healthy", b.text(`document.querySelector('[data-service="model_registry"]').dataset.state`), "who does not need it")
		assert.Equal(t, "healthy", b.text(`document.querySelector('[data-service="postgres"]').dataset.state`))

		_, err = engine.ContainerStart(t.Context(), s.prefix+"_redis", client.ContainerStartOptions{})
		require.NoError(t, err)
		b.shows("#summary", allHealthy, 20*time.Second)
	})
	t.Run("signing out ends it", func(t *testing.T) {
		b := b.in(t)
		b.do(chromedp.Focus("#signout"))
		b.keys(kb.Enter)
		b.do(chromedp.WaitVisible("#username"), chromedp.Navigate(console+"/"), chromedp.WaitVisible("#username"))
		assert.Equal(t, console+"/login", b.text("location.href"))
	})
	assert.Empty(t, b.elsewhere(console+"/"), "the page asks nobody but the console")
}

// testConsoleLooks holds the page against both colour schemes and five widths, the page's own breakpoint among them.
func testConsoleLooks(t *testing.T, b *browser) {
	for scheme, isDark := range map[string]bool{"light": false, "dark": true} {
		for _, width := range []int64{1440, 1081, 1080, 768, 390} {
			b.prefers(scheme)
			b.do(chromedp.EmulateViewport(width, 900), chromedp.Sleep(200*time.Millisecond))
			wider := b.text(`[document.documentElement, ...document.querySelectorAll("section")].filter(e => e.scrollWidth > e.clientWidth).map(e => e.id || e.className || e.nodeName).join()`)
			assert.Empty(t, wider, "horizontal scrolling, %s, %d px", scheme, width)
			shot := get(b, chromedp.CaptureScreenshot())
			assert.Equal(t, isDark, brightness(t, shot) < 0.5, "%s, %d px", scheme, width)
			if name := map[int64]string{1440: "wide", 390: "narrow"}[width]; name != "" {
				keepShot(t, "console-"+name+"-"+scheme, shot)
			}
			for _, part := range []string{"body", "#services td.state", "#services th[scope=row]", "#post label", "#send", "#jobs .word", "nav a", "footer p", ".quiet"} {
				contrast := get(b, chromedp.Evaluate[float64](fmt.Sprintf(contrastOf, part)))
				assert.GreaterOrEqual(t, contrast, 4.5, "contrast of %s, %s", part, scheme)
			}
		}
	}
	b.prefers("")
	b.do(chromedp.ResetViewport())
}

// keepShot writes a screenshot for the README where SCREENSHOTS names a folder to write it to.
func keepShot(t *testing.T, name string, shot []byte) {
	t.Helper()
	if folder := os.Getenv("SCREENSHOTS"); folder != "" {
		require.NoError(t, os.WriteFile(filepath.Join(folder, name+".png"), shot, 0o600))
	}
}

// contrastOf works out the contrast of an element's text with what is behind it, as WCAG 2 defines it.
const contrastOf = `(() => {
	const paint = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
	const rgba = colour => { paint.clearRect(0, 0, 1, 1); paint.fillStyle = colour; paint.fillRect(0, 0, 1, 1); return paint.getImageData(0, 0, 1, 1).data; };
	const light = ([r, g, b]) => { const c = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; return 0.2126 * c(r) + 0.7152 * c(g) + 0.0722 * c(b); };
	const element = document.querySelector(%q);
	let behind = element;
	while (behind && rgba(getComputedStyle(behind).backgroundColor)[3] < 255) behind = behind.parentElement;
	const text = light(rgba(getComputedStyle(element).color));
	const ground = light(rgba(behind ? getComputedStyle(behind).backgroundColor : "Canvas"));
	return (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
})()`

// brightness is a picture's mean, from 0 for black to 1 for white.
func brightness(t *testing.T, shot []byte) float64 {
	t.Helper()
	picture, err := png.Decode(bytes.NewReader(shot))
	require.NoError(t, err)
	sum, count := 0.0, 0.0
	for y := picture.Bounds().Min.Y; y < picture.Bounds().Max.Y; y += 4 {
		for x := picture.Bounds().Min.X; x < picture.Bounds().Max.X; x += 4 {
			r, g, b, _ := picture.At(x, y).RGBA()
			sum += float64(r+g+b) / 3 / 0xffff
			count++
		}
	}
	return sum / count
}

// browser is one tab of a headless Chromium of its own.
type browser struct {
	t   *testing.T
	ctx context.Context
	log *requestLog
}

// requestLog holds the addresses that the tab has asked for.
type requestLog struct {
	mu        sync.Mutex
	addresses []string
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.UserDataDir(t.TempDir()))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium's sandbox does not start as root
	}
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := &browser{t: t, ctx: ctx, log: &requestLog{}}
	// This starts Chromium and binds it to its context, which therefore must not be one with a deadline.
	require.NoError(t, chromedp.Listen(ctx, func(event any) {
		if request, ok := event.(*network.EventRequestWillBeSent); ok {
			b.log.mu.Lock()
			defer b.log.mu.Unlock()
			b.log.addresses = append(b.log.addresses, request.Request.URL)
		}
	}), "Chromium does not start; Debian: apt-get install chromium")
	_, err := chromedp.Call(ctx, network.Enable, network.EnableParams{})
	require.NoError(t, err)
	return b
}

// in is the browser for a subtest.
func (b *browser) in(t *testing.T) *browser { return &browser{t: t, ctx: b.ctx, log: b.log} }

// patience is how long the browser may take for one step.
const patience = 20 * time.Second

// do carries actions out.
func (b *browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	get(b, chromedp.Steps(actions...))
}

// get carries one action out and gives what it found.
func get[T any](b *browser, action chromedp.Action[T]) T {
	b.t.Helper()
	found, err := try(b, action)
	require.NoError(b.t, err)
	return found
}

// try is get for a poll, which must be able to go on after an error.
func try[T any](b *browser, action chromedp.Action[T]) (T, error) {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	return chromedp.Run(ctx, action)
}

// prefers sets the colour scheme that the person likes; empty for none.
func (b *browser) prefers(scheme string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	require.NoError(b.t, err)
}

// keys types into whatever has the focus.
func (b *browser) keys(keys ...string) {
	b.t.Helper()
	for _, key := range keys {
		b.do(chromedp.KeyEvent(key))
	}
}

// text returns what an expression says.
func (b *browser) text(expression string) string {
	b.t.Helper()
	return get(b, chromedp.Evaluate[string](expression))
}

// loaded waits for the end of the page: on a busy machine a browser shows the first rows of a table before the last.
func (b *browser) loaded() {
	b.t.Helper()
	get(b, chromedp.Poll[bool](`document.readyState === "complete"`))
}

// shows waits until the text is on the page, in the element.
func (b *browser) shows(element, want string, within time.Duration) {
	b.t.Helper()
	require.EventuallyWithT(b.t, func(c *assert.CollectT) {
		got, err := try(b, chromedp.Evaluate[string](`document.querySelector("`+element+`")?.textContent ?? "no such element"`))
		assert.NoError(c, err)
		assert.Contains(c, strings.Join(strings.Fields(got), " "), want)
	}, within, 200*time.Millisecond)
}

// elsewhere returns the addresses asked for that do not begin with the prefix.
func (b *browser) elsewhere(prefix string) []string {
	b.log.mu.Lock()
	defer b.log.mu.Unlock()
	var other []string
	for _, address := range b.log.addresses {
		if !strings.HasPrefix(address, prefix) {
			other = append(other, address)
		}
	}
	return other
}

// dependents returns the services of a plan that start after a service, directly or through others, sorted by name.
func dependents(p *plan.Plan, of string) []string {
	found := map[string]bool{of: true}
	for _, s := range p.Services { // each after those that it starts after
		if slices.ContainsFunc(s.After, func(name string) bool { return found[name] }) {
			found[s.Name] = true
		}
	}
	delete(found, of)
	return slices.Sorted(maps.Keys(found))
}
