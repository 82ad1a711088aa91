package main

import (
	"context"
	"net"
	"net/url"
	"time"

	"github.com/gomodule/redigo/redis"
)

// redisClient holds connections to a database of Redis, which are made when they are used.
type redisClient struct{ redis.Pool }

// openRedis returns a client for a URL of the form redis://:password@host:port/db.
func openRedis(address string) *redisClient {
	return &redisClient{redis.Pool{
		MaxIdle: 2,
		DialContext: func(ctx context.Context) (redis.Conn, error) {
			return redis.DialURLContext(ctx, address, redis.DialConnectTimeout(checkTimeout), redis.DialReadTimeout(checkTimeout))
		},
		TestOnBorrow: func(conn redis.Conn, used time.Time) (err error) {
			if time.Since(used) > 2*time.Second { // Redis may have been restarted meanwhile
				_, err = conn.Do("PING")
			}
			return err
		},
	}}
}

func (s *service) redisAtHost(database string) *redisClient {
	address := url.URL{Scheme: "redis", User: url.UserPassword("", s.env["REDIS_PASSWORD"]), Path: "/" + database,
		Host: net.JoinHostPort(s.env["REDIS_HOST"], s.env["REDIS_PORT"])}
	return openRedis(address.String())
}

func (c *redisClient) do(ctx context.Context, command string, args ...any) (any, error) {
	conn, err := c.GetContext(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }() // returns it to the pool
	return redis.DoContext(conn, ctx, command, args...)
}
