alter table server_claim add column due text;
alter table server_claim add column request text;
alter table server_claim add column woken bigint not null default 0;

create index server_claim_due on server_claim (due, created_at);
create index server_claim_request on server_claim (request, created_at);

update server_claim set due = 'yes' where phase = 'Pending';
