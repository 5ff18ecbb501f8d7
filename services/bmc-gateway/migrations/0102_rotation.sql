alter table credential add column pending_key text;
alter table credential add column pending_secret text;
