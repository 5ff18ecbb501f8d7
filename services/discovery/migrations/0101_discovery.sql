create table endpoint (
    endpoint_id text primary key,
    uid text not null,
    version bigint not null,
    body text not null,
    created_at bigint not null,
    updated_at bigint not null
);

create table discovery_run (
    discovery_run_id text primary key,
    uid text not null,
    version bigint not null,
    body text not null,
    created_at bigint not null,
    updated_at bigint not null
);

create table agent_run (
    agent_run_id text primary key,
    uid text not null,
    version bigint not null,
    body text not null,
    created_at bigint not null,
    updated_at bigint not null,
    server text not null,
    ended text not null,
    token_sha256 text not null
);

create index agent_run_server on agent_run (server, ended);
create index agent_run_token on agent_run (token_sha256);
