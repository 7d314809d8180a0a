-- Whose a job is, and when it ended: null while it may still run.
alter table job add column owner text not null default '', add column ended_at timestamptz;
update job j set
    owner = facts::json ->> 'owner',
    ended_at = (select case when bool_and(a.ended_at is not null) then max(a.ended_at) end
                from attempt a where a.job = j.job);
create index job_ended on job (owner, ended_at) where ended_at is not null;

-- When a sealed log is to be compressed, or tried again; null: there is nothing to do. Claimed by moving it on.
alter table stream add column compress_at timestamptz;
update stream set compress_at = now() where kind = 'log' and state = 'sealed' and total > 4096;
create index stream_compress on stream (compress_at) where compress_at is not null;

-- Streams whose rows are gone, and whose files go next.
create table removal (
    kind     text not null,
    job      bigint not null,
    attempt  integer not null,
    worker   text not null,
    label    text not null,
    primary key (kind, job, attempt, worker, label)
);

-- The shelf (a thousand jobs) that was searched for leftovers last, and when the next one is.
create table sweep (
    one    boolean primary key default true check (one),
    shelf  bigint not null default -1,
    at     timestamptz not null default now()
);
insert into sweep default values;
