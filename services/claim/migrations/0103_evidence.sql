create table evidence (
    evidence_id text primary key,
    uid text not null,
    version bigint not null,
    body text not null,
    created_at bigint not null,
    updated_at bigint not null,
    server text not null
);

create index evidence_server on evidence (server, created_at);
