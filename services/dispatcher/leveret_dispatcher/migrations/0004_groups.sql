-- Groups: jobs of one owner that share a name.

-- As a routing word. Null: in no group, or the group that it names had no place left when it came.
alter table job add column group_name text;
create index job_of_group on job (owner, group_name) where group_name is not null;

-- Groups whose size has been said; one that is open has no row.
create table job_group (
    -- both as routing words
    owner      text not null,
    name       text not null,
    -- command.group.v1, as it was given
    closing    text not null,
    closed_at  timestamptz not null default now(),
    -- its end has been told
    ended_at   timestamptz,
    primary key (owner, name)
);
