create table bmc (
    bmc_id text primary key,
    uid text not null,
    version bigint not null,
    body text not null,
    created_at bigint not null,
    updated_at bigint not null,
    credential text,
    target text,
    constraint bmc_target_key unique (target)
);

create index bmc_credential on bmc (credential);

create table credential (
    credential_id text primary key,
    version bigint not null,
    sealed_key text not null,
    sealed_secret text not null,
    updated_at bigint not null
);

create table session (
    session_id text primary key,
    device text not null,
    sealed_key text not null,
    sealed_secret text not null,
    updated_at bigint not null
);
