alter table work_item add column failing_since bigint;
