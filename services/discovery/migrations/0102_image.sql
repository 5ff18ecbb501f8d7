alter table agent_run add column image_id text;

create index agent_run_image on agent_run (image_id);
