drop index change_position;

alter table change drop column tx;

alter table change add column version bigint not null default 0;

-- The place of a change in the feed: given once its transaction has committed, so that nothing appears behind a reader.
alter table change add column position bigint;

create index change_position on change (position);

delete from fact where fact_id = 'change_floor';
