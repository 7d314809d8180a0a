-- What is kept of a worker beyond its sessions; one without a row is given jobs, and has had no fault lately.
create table worker (
    name            text primary key,
    -- an operator's order; null: there is none
    drained_at      timestamptz,
    drained_by      text,
    -- seconds that what runs is given; null: as the worker's configuration says
    drain_limit     double precision,
    -- infrastructure faults in a row, and the last one in words
    faults          integer not null default 0,
    last_fault      text,
    quarantined_at  timestamptz
);
