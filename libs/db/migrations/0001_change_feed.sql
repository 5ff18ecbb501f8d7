create table change (
    seq {{auto_id}},
    tx {{tx_id}},
    kind text not null,
    name text not null,
    uid text not null,
    deleted bigint not null,
    created_at bigint not null
);

create index change_position on change (kind, tx, seq);

create table fact (
    fact_id text primary key,
    value text not null
);
