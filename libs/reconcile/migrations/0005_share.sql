alter table work_item add column slot bigint not null default -1;

create table replica (
    replica_id text primary key,
    address text not null,
    beat bigint not null
);
