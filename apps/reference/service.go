package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// service is one of the names that the reference app answers to.
type service struct {
	name      string
	port      string // the port inside the container
	readiness string // the path that answers 200 only while the dependencies do
	liveness  string // the path that answers 200 while the process runs; empty: none
	// setup reads the service's environment and registers what it serves and runs.
	setup func(*runtime) error
	// config is an empty value of the environment that setup reads.
	config any
}

func services() []service {
	api := func(name, port string, config any, setup func(*runtime) error) service {
		return service{name: name, port: port, readiness: "/health", setup: setup, config: config}
	}
	console := func(name string, config any, setup func(*runtime) error) service {
		return service{name: name, port: "8080", readiness: "/readyz", liveness: "/healthz", setup: setup, config: config}
	}
	list := []service{
		api("execution_gateway", "8002", &gatewayConfig{}, setupGateway),
		api("signal_service", "8001", &signalConfig{}, setupSignals),
		api("market_data_service", "8004", &marketDataConfig{}, setupMarketData),
		api("model_registry", "8005", &modelsConfig{}, setupModels),
		api("orchestrator", "8003", &orchestratorConfig{}, setupOrchestrator),
		api("alert_worker", "9100", &alertConfig{}, setupAlerts),
		console("web_console", &ConsoleConfig{}, setupConsole),
		console("web_console_dev", &consoleDevConfig{}, setupConsoleDev),
		console("web_console_mtls", &consoleMTLSConfig{}, setupConsoleMTLS),
		console("web_console_oauth2", &consoleOAuth2Config{}, setupConsoleOAuth2),
		api("auth_service", "8001", &authConfig{}, setupAuth),
	}
	for _, kind := range []string{"dev", "high", "normal", "low"} {
		list = append(list, api("backtest_worker_"+kind, "9100", &backtestConfig{}, setupBacktest))
	}
	return list
}

func serviceNames() []string {
	var names []string
	for _, svc := range services() {
		names = append(names, svc.name)
	}
	slices.Sort(names)
	return names
}

func findService(name string) (service, error) {
	for _, svc := range services() {
		if svc.name == name {
			return svc, nil
		}
	}
	if name == "" {
		return service{}, errors.New("no service named: say `reference serve <service>` or set SERVICE_NAME\n\n" + usage + strings.Join(serviceNames(), ", "))
	}
	return service{}, fmt.Errorf("no service %q; there are %s", name, strings.Join(serviceNames(), ", "))
}
