-- Which job waits for the success of which others of its owner.
create table dependency (
    job    bigint not null references job,
    -- not a reference: it may not have come yet
    needs  bigint not null,
    primary key (job, needs)
);

-- When a job has waited long enough that was never granted; null for what was accepted before there was such a thing.
alter table job add column queue_until timestamptz;
create index job_queue_until on job (queue_until) where status = 'pending' and attempt = 0;
