-- Jobs as the dispatcher's events describe them.
create table job (
    job    bigint primary key,
    -- of the newest event seen: an older one changes nothing
    seq    integer not null,
    -- JobFacts as JSON; not jsonb, which holds no NUL
    facts  text not null
);

create table attempt (
    job       bigint not null,
    attempt   integer not null,
    seq       integer not null,
    -- the worker whose streams are this attempt's; what any other says of it is never shown
    worker    text,
    started   boolean not null,
    ran       text[] not null,
    ended_at  timestamptz,
    -- when logs without an end become gaps; null: not ended, or judged
    judge_at  timestamptz,
    primary key (job, attempt)
);

create index attempt_due on attempt (judge_at) where judge_at is not null;

-- Logs and artifacts: bytes that arrive in pieces.
create table stream (
    id          bigint generated always as identity primary key,
    kind        text not null check (kind in ('log', 'artifact')),
    job         bigint not null,
    attempt     integer not null,
    worker      text not null,
    -- a log's task, an artifact's index
    label       text not null,
    -- an artifact's file name
    name        text,
    -- stored ranges: start, end, start, end, ...
    stored      bigint[] not null default '{}',
    -- bytes stored from the start without a hole
    contiguous  bigint not null default 0,
    total       bigint,
    sha256      text,
    lines       bigint,
    state       text not null default 'open' check (state in ('open', 'sealed', 'gap')),
    -- every byte is there and the digest is wrong
    mismatch    boolean not null default false,
    -- what live followers have been sent
    tailed      bigint not null default 0,
    tail_ended  boolean not null default false,
    began_at    timestamptz not null default now(),
    unique (job, attempt, worker, kind, label)
);

create index stream_provable on stream (id) where contiguous = total and state <> 'sealed' and not mismatch;

create index stream_untold on stream (id)
    where kind = 'log' and not tail_ended and (tailed < contiguous or state <> 'open');
