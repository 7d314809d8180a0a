-- The outbox holds what was not published yet, and nothing else: the replay stream keeps what was.
delete from outbox where sent_at is not null;
drop index outbox_unsent;
alter table outbox drop column sent_at;
create index outbox_of_job on outbox (job, id);
