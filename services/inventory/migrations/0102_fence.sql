create table reservation_fence (
    scope text primary key,
    number bigint not null
);
