-- The dispatcher's state. Texts named so hold JSON as it came: `jsonb` would refuse an escaped NUL that a stranger sent.

-- One row: who leads. `epoch` grows with every leader and fences the one before.
create table leader (
    single      boolean primary key default true check (single),
    epoch       bigint not null,
    holder      uuid,
    renewed_at  timestamptz not null
);
insert into leader (epoch, renewed_at) values (0, now());

create table job (
    id            bigint primary key,
    -- as a routing word
    owner         text not null,
    facts         text not null,
    requirement   text not null,
    manifest      text not null,
    priority      integer not null,
    -- what came with the job and belongs to policies
    ready         text not null,
    time_limit    double precision not null,

    status        text not null,
    reason        text not null,
    detail        text,
    -- the latest attempt granted, 0 before the first
    attempt       integer not null default 0,
    worker        text,
    losses        integer not null default 0,
    cancelling    boolean not null default false,
    tasks         text not null,
    artifacts     text not null default '[]',
    timings       text,

    submitted_at  timestamptz not null,
    accepted_at   timestamptz not null default now(),
    started_at    timestamptz,
    ended_at      timestamptz
);
create index job_of_owner on job (owner, id desc);
create index job_waiting on job (id) where status = 'pending';

create table attempt (
    -- the grant
    id          uuid primary key,
    job         bigint not null references job,
    number      integer not null,
    worker      text not null,
    session     uuid not null,
    -- null: the grant reached no one, so the slot token is free again
    token       uuid,
    epoch       bigint not null,
    time_limit  double precision not null,
    seq         bigint not null default 0,
    granted_at  timestamptz not null default now(),
    started_at  timestamptz,
    ended_at    timestamptz,
    fate        text,
    unique (session, token),
    unique (job, number)
);
create index attempt_under_way on attempt (job) where fate is null;

create table session (
    id        uuid primary key,
    worker    text not null,
    spool     uuid not null,
    offer     text not null,
    slots     integer not null,
    draining  boolean not null,
    since     timestamptz not null default now(),
    ended_at  timestamptz,
    -- lost, replaced or closed
    ended_as  text
);
create unique index session_live on session (worker) where ended_at is null;
create index session_ended on session (ended_at) where ended_at is not null;

-- Cancels that came before their job.
create table cancellation (
    job    bigint not null,
    owner  text not null,
    at     timestamptz not null default now(),
    primary key (owner, job)
);

create table dead (
    id          bigint generated always as identity primary key,
    queue       text not null,
    reason      text not null,
    type        text not null,
    message_id  text not null,
    exchange    text not null,
    key         text not null,
    bytes       bigint not null,
    sha256      text not null,
    body        bytea not null,
    -- the message's headers, among them the broker's own account of its way
    history     text not null,
    filed_at    timestamptz not null default now()
);
