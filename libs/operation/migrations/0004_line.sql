alter table operation add column line text;

create index operation_line on operation (line, created_at);
