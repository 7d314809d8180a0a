-- A group that ended with at least one trigger to serve, as it was told (group.ended.v1 without its triggers).
create table ended_group (
    -- made from owner, name and end
    id           uuid primary key,
    message      bytea not null,
    received_at  timestamptz not null default now()
);

-- A delivery tells of a job or of a group.
alter table delivery
    alter column job drop not null,
    add column ended_group uuid references ended_group,
    add check (num_nonnulls(job, ended_group) = 1),
    add unique (ended_group, trigger_index);
