create table operation (
    operation_id text primary key,
    uid text not null,
    version bigint not null,
    body text not null,
    created_at bigint not null,
    updated_at bigint not null,
    done text not null
);

create index operation_done on operation (done, created_at);

create table request (
    request_id text primary key,
    method text not null,
    body_sha256 text not null,
    answer text not null,
    created_at bigint not null
);

create index request_created_at on request (created_at);
