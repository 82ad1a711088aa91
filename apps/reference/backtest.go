package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"
)

const (
	maxBars      = 1_000_000
	maxStepDelay = 60_000
	// bytesPerBar is what a bar costs while a job runs: the bar, its line of CSV and the line's copy in the writer.
	bytesPerBar = 256
)

type backtester struct {
	rt          *runtime
	db          store
	dataRoot    string
	cacheDir    string
	resultsDir  string
	lockDir     string
	memoryLimit int64
}

func setupBacktest(rt *runtime) error {
	cfg, err := load[backtestConfig](rt.environ)
	if err != nil {
		return err
	}
	b := &backtester{rt: rt, dataRoot: cfg.DataRoot, cacheDir: cfg.YFinanceDir, resultsDir: filepath.Dir(cfg.YFinanceDir), lockDir: cfg.LockDir, memoryLimit: int64(cfg.MemoryLimit)}
	debug.SetMemoryLimit(b.memoryLimit)
	var faults []error
	for name, dir := range map[string]string{"YFINANCE_DATA_DIR": b.cacheDir, "DATA_LOCK_DIR": b.lockDir} {
		if err := writable(dir); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w; give the folder, or the volume that it lies in, to user %d", name, err, os.Getuid()))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	b.db, err = setupWorker(rt, cfg.WorkerConfig, b.handle)
	return err
}

func writable(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	file, err := os.CreateTemp(dir, ".writable")
	if err != nil {
		return err
	}
	return errors.Join(file.Close(), os.Remove(file.Name()))
}

// setupWorker joins a handler to its queues.
func setupWorker(rt *runtime, cfg WorkerConfig, handle jobHandler) (store, error) {
	db, err := rt.postgres(cfg.DatabaseURL)
	if err != nil {
		return nil, err
	}
	rdb, err := rt.redisURL(cfg.RedisURL)
	if err != nil {
		return nil, err
	}
	rt.background = append(rt.background, newWorker(rt, rdb, cfg.Queues, handle).run)
	return db, rt.depend(cfg.StackConfig)
}

// backtestJob is the payload of the backtest queues.
type backtestJob struct {
	JobID       string `json:"job_id"`
	Symbol      string `json:"symbol"`
	Fast        int    `json:"fast"`          // bars in the fast average; default 10
	Slow        int    `json:"slow"`          // bars in the slow average; default 30
	Bars        int    `json:"bars"`          // days of history; default 250
	StepDelayMS int    `json:"step_delay_ms"` // pause after each bar, to have a job that lasts; default 0
	TraceID     string `json:"trace_id"`
}

type backtestResult struct {
	JobID       string    `json:"job_id"`
	Symbol      string    `json:"symbol"`
	Fast        int       `json:"fast"`
	Slow        int       `json:"slow"`
	From        string    `json:"from"`
	To          string    `json:"to"`
	Bars        int       `json:"bars"`
	Trades      int       `json:"trades"`
	TotalReturn float64   `json:"total_return"` // 0.1 is 10 %
	MaxDrawdown float64   `json:"max_drawdown"` // 0.1 is 10 % below the highest equity before
	BuyAndHold  float64   `json:"buy_and_hold"`
	Queue       string    `json:"queue"`
	Worker      string    `json:"worker"`
	Attempts    int       `json:"attempts"`
	FinishedAt  time.Time `json:"finished_at"`
	Source      string    `json:"source"`
	equity      []float64
	days        []bar
}

func parseBacktest(payload []byte, memoryLimit int64) (backtestJob, error) {
	b := backtestJob{Fast: 10, Slow: 30, Bars: 250}
	if err := json.Unmarshal(payload, &b); err != nil {
		return b, fmt.Errorf("payload is not a backtest job: %w", err)
	}
	switch {
	case !identifier.MatchString(b.JobID):
		return b, errors.New("job_id: 1 to 64 letters, digits, dots, dashes or underscores")
	case !symbolName.MatchString(b.Symbol):
		return b, fmt.Errorf("symbol: %q is not a symbol such as AAPL", b.Symbol)
	case b.Fast < 1 || b.Slow <= b.Fast || b.Bars <= b.Slow || b.Bars > maxBars:
		return b, fmt.Errorf("fast, slow, bars: must rise from 1 to at most %d", maxBars)
	case b.StepDelayMS < 0 || b.StepDelayMS > maxStepDelay:
		return b, fmt.Errorf("step_delay_ms: must be from 0 to %d", maxStepDelay)
	case int64(b.Bars)*bytesPerBar > memoryLimit:
		return b, fmt.Errorf("bars: %d need more than BACKTEST_JOB_MEMORY_LIMIT (%d bytes)", b.Bars, memoryLimit)
	}
	return b, nil
}

// handle does one backtest. The result file is linked into place once, and the job's row goes from running to ended once: a second
// worker that does the same job again, because the first was taken for dead, changes neither.
func (b *backtester) handle(ctx context.Context, j job) (string, error) {
	spec, err := parseBacktest(j.payload, b.memoryLimit)
	if err != nil {
		return "", permanent{err}
	}
	record := jobRecord{JobID: spec.JobID, Queue: j.queue, Worker: j.worker, Attempts: j.attempts, Status: "completed", Detail: fmt.Sprintf("%s %d/%d over %d days", spec.Symbol, spec.Fast, spec.Slow, spec.Bars)}
	fresh, err := b.db.startJob(ctx, record)
	if err != nil {
		return "", err
	}
	if !fresh {
		b.rt.log.InfoContext(ctx, "job has ended before, nothing to do", "job_id", spec.JobID, "queue", j.queue)
		return "duplicate", nil
	}
	b.rt.log.InfoContext(ctx, "backtest started", "job_id", spec.JobID, "queue", j.queue, "attempt", j.attempts)
	result, err := b.compute(ctx, spec, j)
	var fault permanent
	if errors.As(err, &fault) {
		record.Status, record.Detail = "failed", brief(fault)
		_, storeErr := b.db.finishJob(ctx, record)
		return "", errors.Join(fault, storeErr)
	}
	if err != nil {
		return "", err
	}
	record.Detail += fmt.Sprintf(": %+.2f %%, %d trades", 100*result.TotalReturn, result.Trades)
	first, err := b.db.finishJob(ctx, record)
	if err != nil || !first {
		return "duplicate", err
	}
	b.rt.log.InfoContext(ctx, "backtest completed", "job_id", spec.JobID, "queue", j.queue, "attempt", j.attempts, "total_return", result.TotalReturn)
	return "completed", nil
}

// compute runs the backtest and writes its files.
func (b *backtester) compute(ctx context.Context, spec backtestJob, j job) (backtestResult, error) {
	if j.attempts > maxAttempts {
		return backtestResult{}, permanent{fmt.Errorf("gave up after %d attempts", maxAttempts)}
	}
	bars, err := b.prices(ctx, spec)
	if err != nil {
		return backtestResult{}, err
	}
	result, err := backtest(ctx, spec, bars)
	if err != nil {
		return result, err
	}
	result.Queue, result.Worker, result.Attempts, result.FinishedAt = j.queue, j.worker, j.attempts, time.Now().UTC()
	return result, b.write(result)
}

// backtest holds the symbol while its fast average stands above its slow one.
func backtest(ctx context.Context, spec backtestJob, bars []bar) (backtestResult, error) {
	result := backtestResult{JobID: spec.JobID, Symbol: spec.Symbol, Fast: spec.Fast, Slow: spec.Slow, Bars: len(bars), From: bars[0].Date, To: bars[len(bars)-1].Date,
		Source: "reference app: made-up prices, unless DATA_ROOT has the symbol's", days: bars}
	equity, peak, holding := 1.0, 1.0, false
	for i := range bars {
		if holding {
			equity *= bars[i].Close / bars[i-1].Close
		}
		if i+1 >= spec.Slow {
			hold := average(bars, i, spec.Fast) > average(bars, i, spec.Slow)
			if hold != holding {
				holding = hold
				result.Trades++
			}
		}
		peak = max(peak, equity)
		result.MaxDrawdown = max(result.MaxDrawdown, 1-equity/peak)
		result.equity = append(result.equity, equity)
		if spec.StepDelayMS > 0 {
			sleep(ctx, time.Duration(spec.StepDelayMS)*time.Millisecond)
		}
		if ctx.Err() != nil {
			return result, context.Cause(ctx)
		}
	}
	round := func(x float64) float64 { return math.Round(x*1e6) / 1e6 }
	result.TotalReturn, result.MaxDrawdown = round(equity-1), round(result.MaxDrawdown)
	result.BuyAndHold = round(bars[len(bars)-1].Close/bars[0].Close - 1)
	return result, nil
}

// prices takes the symbol's own CSV (date,close) under DATA_ROOT where there is one, else the made-up series, which is kept under
// YFINANCE_DATA_DIR. A file lock lets one worker of all make that file while the others wait.
func (b *backtester) prices(ctx context.Context, spec backtestJob) ([]bar, error) {
	bars, err := readBars(filepath.Join(b.dataRoot, spec.Symbol+".csv"))
	if errors.Is(err, fs.ErrNotExist) {
		bars, err = b.cachedSeries(ctx, spec)
	}
	if err != nil {
		return nil, err
	}
	if len(bars) < spec.Bars {
		return nil, permanent{fmt.Errorf("bars: %d asked for, %s has %d", spec.Bars, spec.Symbol, len(bars))}
	}
	return bars[len(bars)-spec.Bars:], nil
}

func (b *backtester) cachedSeries(ctx context.Context, spec backtestJob) ([]bar, error) {
	unlock, err := lockFile(ctx, filepath.Join(b.lockDir, spec.Symbol+".lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	path := filepath.Join(b.cacheDir, spec.Symbol+".csv")
	bars, err := readBars(path)
	today := time.Now().UTC()
	if err == nil && len(bars) >= spec.Bars && bars[len(bars)-1].Date == today.Format(time.DateOnly) {
		return bars, nil
	}
	// A cache that is old, short or unreadable is simply made again.
	bars = series(spec.Symbol, today, maxBars)
	rows := [][]string{{"date", "close"}}
	for _, one := range bars {
		rows = append(rows, []string{one.Date, strconv.FormatFloat(one.Close, 'f', 2, 64)})
	}
	return bars, writeFile(path, csvBytes(rows), os.Rename)
}

func readBars(path string) ([]bar, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	rows, err := csv.NewReader(file).ReadAll()
	if err != nil || len(rows) == 0 {
		return nil, permanent{fmt.Errorf("%s is not a CSV of date,close: %w", path, errors.Join(err, io.ErrUnexpectedEOF))}
	}
	var bars []bar
	for i, row := range rows[1:] {
		price, err := strconv.ParseFloat(row[len(row)-1], 64)
		if err != nil || len(row) < 2 || price <= 0 {
			return nil, permanent{fmt.Errorf("%s, line %d: is not date,close", path, i+2)}
		}
		bars = append(bars, bar{row[0], price})
	}
	return bars, nil
}

func csvBytes(rows [][]string) []byte {
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	_ = w.WriteAll(rows) // a buffer takes everything
	return out.Bytes()
}

// write puts the equity curve and then the summary in place; who sees the summary can read the curve.
func (b *backtester) write(result backtestResult) error {
	rows := [][]string{{"date", "close", "equity"}}
	for i, one := range result.days {
		rows = append(rows, []string{one.Date, strconv.FormatFloat(one.Close, 'f', 2, 64), strconv.FormatFloat(result.equity[i], 'f', 6, 64)})
	}
	summary, err := json.MarshalIndent(result, "", "  ")
	if err != nil {
		return err
	}
	base := filepath.Join(b.resultsDir, result.JobID)
	return errors.Join(writeFile(base+".csv", csvBytes(rows), linkOnce), writeFile(base+".json", append(summary, '\n'), linkOnce))
}

// linkOnce gives a finished file its name, unless the name is taken: the first result stays.
func linkOnce(from, to string) error {
	err := os.Link(from, to)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// writeFile writes under a name that nobody reads, then puts it in place whole.
func writeFile(path string, content []byte, place func(from, to string) error) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".writing-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }()
	_, err = file.Write(content)
	if err = errors.Join(err, file.Chmod(0o644), file.Sync(), file.Close()); err != nil {
		return err
	}
	return place(file.Name(), path)
}

// lockFile waits for an exclusive lock that all workers on the volume respect, and that the kernel lets go of when one dies.
func lockFile(ctx context.Context, path string) (func(), error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) || !sleep(ctx, 50*time.Millisecond) {
			return nil, errors.Join(err, ctx.Err(), file.Close())
		}
	}
}
