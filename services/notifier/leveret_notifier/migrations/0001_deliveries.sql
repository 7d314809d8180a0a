-- A job that ended with at least one trigger to serve, as it was told (job.ended.v1 without its triggers).
create table ended_job (
    job          bigint primary key,
    -- JSON; not jsonb, which refuses characters that a note may hold
    message      bytea not null,
    received_at  timestamptz not null default now()
);

-- One trigger to serve. The id is made from the job and the trigger's place, so that telling us twice changes nothing.
create table delivery (
    id             uuid primary key,
    job            bigint not null references ended_job,
    trigger_index  integer not null,
    trigger        bytea not null,
    state          text not null default 'waiting' check (state in ('waiting', 'delivered', 'failed')),
    -- begun, whether or not they came to an end
    tries          integer not null default 0,
    -- waiting: when to try; while a try runs: when to believe that it died
    due_at         timestamptz not null default now(),
    -- mail: recipients not yet served or refused; null is all of them
    remaining      text[],
    -- mail: recipients served
    reached        integer not null default 0,
    -- of the last try: for everyone who sees the job, and for the operator alone
    detail         text,
    answer         text,
    made_at        timestamptz not null default now(),
    ended_at       timestamptz,
    unique (job, trigger_index)
);

create index delivery_due on delivery (due_at) where state = 'waiting';
