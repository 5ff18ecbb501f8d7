create table server_maintenance (
    server_maintenance_id text primary key,
    uid text not null,
    version bigint not null,
    body text not null,
    created_at bigint not null,
    updated_at bigint not null,
    server text not null
);

create index server_maintenance_server on server_maintenance (server, created_at);
