package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/charmbracelet/bubbles/table"
	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/lipgloss"
	"golang.org/x/term"

	"trading-platform/observe"
	"trading-platform/operate"
)

// watcher is a live table of all services of a stack.
type watcher struct {
	*operate.Services
	ctx   context.Context
	table table.Model
	note  string // how the last restart ended
	away  string // why the engine could not be asked just now
	log   string // shown in place of the table; empty for none
	size  tea.WindowSizeMsg
}

// The messages of the table: new rows, a note, and a log.
type (
	rowsMsg struct {
		rows []table.Row
		err  error
	}
	noteMsg string
	logMsg  string
)

// watch shows the live table until the user ends it.
func watch(ctx context.Context, all *operate.Services) error {
	if !term.IsTerminal(int(os.Stdout.Fd())) {
		return errors.New("--watch needs a terminal. Fix: leave the flag out")
	}
	_, err := tea.NewProgram(newWatcher(ctx, all), tea.WithAltScreen(), tea.WithContext(ctx)).Run()
	if ctx.Err() != nil {
		return nil //nolint:nilerr // the user has ended it
	}
	return err
}

func newWatcher(ctx context.Context, all *operate.Services) watcher {
	return watcher{Services: all, ctx: ctx, table: table.New(table.WithFocused(true))}
}

// Init asks the engine for the first rows.
func (w watcher) Init() tea.Cmd { return w.look }

// Update handles a key, a new size of the terminal, or an answer of the engine.
func (w watcher) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		w.size = msg
		w.table.SetHeight(msg.Height - 2)
		w.table.SetWidth(msg.Width)
	case rowsMsg:
		if w.away = result(msg.err, ""); msg.err == nil {
			w.show(msg.rows)
		}
		return w, tea.Tick(time.Second, func(time.Time) tea.Msg { return w.look() })
	case noteMsg:
		w.note = string(msg)
	case logMsg:
		w.log = string(msg)
	case tea.KeyMsg:
		switch key := msg.String(); {
		case key == "q" || key == "ctrl+c":
			return w, tea.Quit
		case key == "esc":
			w.log = ""
		case (key == "r" || key == "l") && w.table.SelectedRow() != nil:
			one, _ := operate.Select(w.Engine, w.Here, w.Plan, w.table.SelectedRow()[:1]) // a name of the plan
			if key == "r" {
				w.note = "restarting " + one.Containers[0].Replica
				return w, func() tea.Msg {
					return noteMsg(result(one.Restart(w.ctx), one.Containers[0].Replica+" was restarted, and is healthy"))
				}
			}
			return w, func() tea.Msg {
				var text bytes.Buffer
				return logMsg(result(one.Logs(w.ctx, operate.LogOptions{Tail: "200"}, &text), "") + text.String())
			}
		}
	}
	var cmd tea.Cmd
	w.table, cmd = w.table.Update(msg) // the keys that select a row
	return w, cmd
}

// result is the text of an error, or another text without one.
func result(err error, success string) string {
	if err != nil {
		return "error: " + strings.ReplaceAll(err.Error(), "\n", " ")
	}
	return success
}

// look asks the engine for new rows.
func (w watcher) look() tea.Msg {
	rows, err := watchRows(w.ctx, w.Services)
	return rowsMsg{rows, err}
}

// watchTitles are those of the columns.
var watchTitles = []string{"SERVICE", "HEALTH", "RESTARTS", "DRIFT", "WAITS FOR", "URL", "LAST LINE"}

// show puts rows into the table. Each column is as wide as its longest text, and the last has the rest of the terminal.
func (w *watcher) show(rows []table.Row) {
	columns, rest := make([]table.Column, len(watchTitles)), w.size.Width
	for i, title := range watchTitles {
		width := lipgloss.Width(title)
		for _, row := range rows {
			width = max(width, lipgloss.Width(row[i]))
		}
		if i == len(watchTitles)-1 {
			width = max(20, rest-2)
		}
		columns[i], rest = table.Column{Title: title, Width: width}, rest-width-2
	}
	w.table.SetColumns(columns)
	w.table.SetRows(rows)
}

// View draws the table, or a log.
func (w watcher) View() string {
	if w.log != "" {
		lines := strings.Split(strings.TrimSpace(w.log), "\n")
		return strings.Join(lines[max(0, len(lines)-max(w.size.Height, 4)+2):], "\n") + "\n\nesc: back  q: quit"
	}
	return w.table.View() + "\n↑↓: select  r: restart  l: log  q: quit  " + cmp.Or(w.away, w.note)
}

// watchRows asks the engine for all that the table shows, a row for each container.
func watchRows(ctx context.Context, all *operate.Services) (rows []table.Row, err error) {
	statuses, err := observe.Statuses(ctx, all.Engine, all.Plan)
	var text bytes.Buffer
	err = cmp.Or(err, all.Logs(ctx, operate.LogOptions{Tail: "1", JSON: true}, &text))
	last := map[string]string{}
	for line := range strings.Lines(text.String()) {
		var one struct{ Service, Text string }
		err = cmp.Or(err, json.Unmarshal([]byte(line), &one))
		last[one.Service] = strings.Join(strings.Fields(one.Text), " ")
	}
	for i, status := range statuses { // both lists are in the order of the plan
		replica, waits := all.Containers[i].Replica, ""
		service, _ := all.Plan.Lookup(status.Service)
		for _, other := range statuses {
			if status.Health == "missing" && other.Health != "healthy" && slices.Contains(service.After, other.Service) {
				waits += other.Service + " "
			}
		}
		rows = append(rows, table.Row{replica, status.Health, strconv.Itoa(status.Restarts), status.Drift, waits, all.Plan.URLs()[status.Service], last[replica]})
	}
	return rows, err
}
