-- What is missing of a log is asked for again once nothing new has come for a while.
alter table stream
    add column touched_at timestamptz not null default now(),
    add column asked_at   timestamptz,
    -- what was stored had a wrong digest once, and is asked for anew
    add column distrusted boolean not null default false;

create index stream_unproven on stream (job, attempt) where kind = 'log' and state = 'open';
