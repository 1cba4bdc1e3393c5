-- nearfar's tables for the ledger of a fleet. Run it as the tables' owner in the
-- database that fleet_ledger.url names; nearfar then needs no more than
--   GRANT SELECT, INSERT ON nearfar_requests, nearfar_failed_legs TO the_role;
--   GRANT SELECT ON nearfar_schema TO the_role;
-- A role that may create tables runs it by itself. Later versions only add
-- columns that may be empty, so that older daemons go on writing.
CREATE TABLE IF NOT EXISTS nearfar_requests (
    daemon text NOT NULL,
    id bigint NOT NULL,
    device text NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now(),
    time_ms bigint NOT NULL,
    decision text NOT NULL,
    tenant text NOT NULL,
    key text NOT NULL,
    feature text NOT NULL,
    prompt_version text NOT NULL,
    conversation text NOT NULL,
    endpoint text NOT NULL,
    model text NOT NULL,
    target text NOT NULL,
    zone text NOT NULL,
    ceiling text NOT NULL,
    ceiling_source text NOT NULL,
    reason text NOT NULL,
    outcome text NOT NULL,
    failure text NOT NULL,
    attempts bigint NOT NULL,
    prompt_tokens bigint,
    cached_prompt_tokens bigint,
    completion_tokens bigint,
    reasoning_tokens bigint,
    cost_micro bigint,
    saved_micro bigint,
    cache_written_tokens bigint,
    failed_cost_micro bigint,
    baseline text NOT NULL,
    saved_local_micro bigint,
    ttft_ms double precision,
    duration_ms double precision NOT NULL,
    stream boolean NOT NULL,
    PRIMARY KEY (daemon, id)
);
CREATE INDEX IF NOT EXISTS nearfar_requests_by_time ON nearfar_requests (time_ms);
CREATE TABLE IF NOT EXISTS nearfar_failed_legs (
    daemon text NOT NULL,
    request bigint NOT NULL,
    leg bigint NOT NULL,
    target text NOT NULL,
    zone text NOT NULL,
    failure text NOT NULL,
    pieces bigint NOT NULL,
    PRIMARY KEY (daemon, request, leg)
);
CREATE TABLE IF NOT EXISTS nearfar_schema (version bigint PRIMARY KEY);
INSERT INTO nearfar_schema VALUES (1) ON CONFLICT DO NOTHING;
