alter table replica add column writing text not null default '';
