alter table credential add column networks text not null default '';
