create table work_item (
    queue text not null,
    work_key text not null,
    due_at bigint not null,
    lease_until bigint not null,
    fence bigint not null,
    dirty bigint not null,
    attempts bigint not null,
    constraint work_item_pkey primary key (queue, work_key)
);

create index work_item_due on work_item (queue, due_at);
