create table secret (
    id        uuid primary key,
    -- as a routing word
    owner     text not null,
    kind      text not null,
    -- null: known by its id alone
    name      text,
    path      text,
    mode      integer,
    -- encrypted (keyring.py), bound to id and owner
    value     bytea not null,
    -- the message_id of the command that added it, which may come again
    added_by  text not null,
    added_at  timestamptz not null default now(),
    unique (owner, name),
    unique (owner, added_by)
);

-- What secrets are sealed to for this session; null: it can be given none.
alter table session add column public_key text;
