-- The dead-letter desk: what publishing a letter again takes, and how much is kept.

alter table dead
    -- null: the broker gave the message up, no service
    add column service      text,
    add column content_type text not null default '',
    -- the message's own headers as JSON; null: they could not be kept
    add column headers      text,
    -- bytes that the row takes
    add column kept         bigint not null default 0;
update dead set
    kept = octet_length(body) + octet_length(history),
    sha256 = case when sha256 ~ '^[0-9a-f]{64}$' then sha256 else encode(sha256(body), 'hex') end;

-- One row: the sums of what `dead` holds, so that nobody has to count.
create table dead_desk (
    single   boolean primary key default true check (single),
    letters  bigint not null,
    bytes    bigint not null,
    -- letters that the limits have pushed out, ever
    dropped  bigint not null default 0
);
insert into dead_desk (letters, bytes) select count(*), coalesce(sum(kept), 0) from dead;
