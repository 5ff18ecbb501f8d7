alter table credential add column set_key text;
alter table credential add column set_secret text;
