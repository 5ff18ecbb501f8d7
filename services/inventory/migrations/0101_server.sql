create table server (
    server_id text primary key,
    uid text not null,
    version bigint not null,
    body text not null,
    created_at bigint not null,
    updated_at bigint not null,
    state text not null,
    identity text,
    claimable text not null,
    bmc text,
    claim_uid text,
    place text,
    constraint server_identity_key unique (identity),
    constraint server_claim_uid_key unique (claim_uid),
    constraint server_place_key unique (place)
);

create index server_claimable on server (claimable, server_id);
create index server_state on server (state, server_id);
create index server_bmc on server (bmc, server_id);

create table server_label (
    label_key text not null,
    label_value text not null,
    claimable text not null,
    server_id text not null,
    constraint server_label_pkey primary key (label_key, label_value, claimable, server_id)
);

create index server_label_server on server_label (server_id);

create table server_history (
    server_history_id {{auto_id}},
    server_id text not null,
    server_uid text not null,
    event text not null,
    state_from text not null,
    state_to text not null,
    actor text not null,
    reason text not null,
    created_at bigint not null
);

create index server_history_server on server_history (server_id, server_history_id);
