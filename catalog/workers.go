package catalog

import "time"

func workers() []Service {
	return []Service{
		backtestWorker("dev", "dev", "backtest_high,backtest_normal,backtest_low"),
		backtestWorker("high", "workers", "backtest_high"),
		backtestWorker("normal", "workers", "backtest_normal"),
		backtestWorker("low", "workers", "backtest_low"),
		worker(Service{
			Name: "alert_worker", Profile: "workers", App: "alert_worker", About: "delivers alerts",
			Env: join(workerEnv, fixed("RQ_QUEUES=alerts"), required("ALERT_RECIPIENT_HASH_SECRET")),
		}),
	}
}

var workerEnv = join(from("REDIS_URL=${redis_url}", "REDIS_URL_DOCKER"), from("DATABASE_URL=${database_url}", "DATABASE_URL_DOCKER"))

// worker sets what all workers have in common.
func worker(s Service) Service {
	s.Tier = Workers
	s.After = []string{"redis", "postgres"}
	s.Scalable = true
	s.Metrics = Metrics{Component: "workers", Port: 9100, Reference: true}
	// The healthcheck of the platform's worker images, which connects to Redis.
	s.Probe = Probe{Command: []string{"CMD", "python", "-c",
		"import os, redis; redis.Redis.from_url(os.environ['REDIS_URL'], socket_timeout=3).ping()"}}
	s.Capabilities, s.Memory = rootSetup, 2048
	s.Grace = 30 * time.Second // time to put its job back into the queue
	return s
}

func backtestWorker(suffix, profile, queues string) Service {
	return worker(Service{
		Name: "backtest_worker_" + suffix, Profile: profile, App: "backtest_worker",
		About:   "backtests from " + queues,
		Command: []string{"python", "-m", "apps.backtest_worker.entrypoint"},
		Jobs:    "BACKTEST_JOB_MEMORY_LIMIT",
		Env: join(workerEnv,
			fixed("RQ_QUEUES="+queues),
			optional("BACKTEST_JOB_MEMORY_LIMIT=4294967296"), // bytes
			fixed("DATA_ROOT=/app/data/market_data", "DATA_LOCK_DIR=/app/locks"),
			optional("ENVIRONMENT=dev"),
			fixed("YFINANCE_DATA_DIR="+resultsDir+"/yfinance"),
		),
		Mounts: []Mount{
			{Checkout: "data", Path: "/app/data/market_data", ReadOnly: true, Create: true},
			{Volume: "backtest_data", Path: resultsDir},
			// The workers share the lock files through the volume. The Compose file used the host's /tmp.
			{Volume: "backtest_data", Path: "/app/locks"},
		},
	})
}
