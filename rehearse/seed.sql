-- What a rehearsal puts into PostgreSQL, and counts before and after each up.
CREATE SCHEMA rehearsal;
CREATE TABLE rehearsal.orders AS
  SELECT i AS id, 'SYM' || i % 50 AS symbol, i % 7 + 1 AS quantity, md5(i::text) AS note FROM generate_series(1, 5000) i;
CREATE TABLE rehearsal.positions AS
  SELECT symbol, sum(quantity) AS quantity FROM rehearsal.orders GROUP BY symbol;
