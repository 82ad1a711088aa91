package main

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

type metrics struct {
	registry     *prometheus.Registry
	requests     *prometheus.CounterVec
	durations    *prometheus.HistogramVec
	dependencyUp *prometheus.GaugeVec
	jobs         *prometheus.CounterVec
}

func newMetrics() *metrics {
	m := &metrics{
		registry:     prometheus.NewRegistry(),
		requests:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "http_requests_total", Help: "Requests answered."}, []string{"method", "route", "status"}),
		durations:    prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "http_request_duration_seconds", Help: "Time to answer a request."}, []string{"method", "route"}),
		dependencyUp: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "dependency_up", Help: "1 while the dependency answers, else 0."}, []string{"dependency"}),
		jobs:         prometheus.NewCounterVec(prometheus.CounterOpts{Name: "jobs_total", Help: "Queue jobs by how they ended."}, []string{"queue", "result"}),
	}
	m.registry.MustRegister(m.requests, m.durations, m.dependencyUp, m.jobs, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
