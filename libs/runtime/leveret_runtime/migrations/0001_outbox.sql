-- Every schema that publishes numbered events has these two tables (leveret_runtime.outbox).

create table event_number (
    job  bigint primary key,
    seq  integer not null
);

create table outbox (
    id           bigint generated always as identity primary key,
    -- rows of one job leave in order, one at a time
    job          bigint not null,
    exchange     text not null,
    routing_key  text not null,
    type         text not null,
    message_id   uuid not null,
    body         bytea not null,
    made_at      timestamptz not null default now(),
    sent_at      timestamptz
);

create index outbox_unsent on outbox (job, id) where sent_at is null;
