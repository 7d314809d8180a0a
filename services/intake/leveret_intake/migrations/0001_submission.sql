-- What was accepted: one row a submission, which is one row a job.

-- Rolled back numbers are not given again: job ids grow, with gaps.
create sequence job_number as bigint;

create table submission (
    job           bigint primary key default nextval('job_number'),
    owner         text not null,
    message_id    text not null,
    -- false: the submitter gave no message_id, so intake did
    own_id        boolean not null,
    digest        bytea not null,
    -- the unguessable word in links to logs and artifacts
    link          text not null,
    submitted_at  timestamptz not null default now(),
    -- the broker has the ready job
    handed_on_at  timestamptz,
    -- which session of which intake took the delivery last, and when it acked it: how a redelivery without a
    -- message_id finds its row (kept for those alone)
    session       uuid not null,
    settled_at    timestamptz,
    unique (owner, message_id)
);

create index submission_in_flight on submission (owner, digest) where not own_id and settled_at is null;
