create table server_claim (
    server_claim_id text primary key,
    uid text not null,
    version bigint not null,
    body text not null,
    created_at bigint not null,
    updated_at bigint not null,
    phase text not null
);

create index server_claim_phase on server_claim (phase, created_at);

create table cleanup_run (
    cleanup_run_id text primary key,
    uid text not null,
    version bigint not null,
    body text not null,
    created_at bigint not null,
    updated_at bigint not null,
    server text not null,
    done text not null,
    claim_uid text not null
);

create index cleanup_run_server on cleanup_run (server, created_at);
create index cleanup_run_claim on cleanup_run (claim_uid, created_at);

create table certificate (
    certificate_id text primary key,
    uid text not null,
    version bigint not null,
    body text not null,
    created_at bigint not null,
    updated_at bigint not null,
    server text not null
);

create index certificate_server on certificate (server, created_at);
