//! Images that were pushed and that nobody waits for any more: their operations ended at another gateway, or never began.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::Duration,
};

use ironyard_db::record;
use ironyard_operation::Operation;
use ironyard_resource::Context;
use tokio_util::sync::CancellationToken;

use super::jobs::image_of;

/// How often it looks, and how old what it removes is at least: an image that is being received belongs to no operation yet.
const EVERY: Duration = Duration::from_secs(600);
const OLD: Duration = Duration::from_secs(3600);

/// Keeps the folder tidy until `shutdown`.
pub async fn tidy(cx: &Context, folder: &Path, shutdown: CancellationToken) {
    loop {
        if let Err(error) = tidy_once(cx, folder, OLD).await {
            tracing::warn!(%error, "could not look for images that nobody waits for");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn tidy_once(cx: &Context, folder: &Path, old: Duration) -> ironyard_db::Result<()> {
    let Ok(mut entries) = tokio::fs::read_dir(folder).await else {
        return Ok(());
    };
    // Before the operations are read: an image that comes later is not touched.
    let mut images = Vec::new();
    while let Ok(Some(entry)) = entries.next_entry().await {
        let age = entry
            .metadata()
            .await
            .ok()
            .and_then(|m| m.modified().ok())
            .and_then(|at| at.elapsed().ok());
        if age.is_some_and(|age| age >= old) {
            images.push(entry.path());
        }
    }
    if images.is_empty() {
        return Ok(());
    }
    let running = record::list::<Operation>(&cx.db, "", 1_000_000, &[("done", "false")]).await?;
    let wanted: HashSet<PathBuf> = running.iter().filter_map(|row| image_of(&row.value)).collect();
    for image in images.into_iter().filter(|image| !wanted.contains(image)) {
        match tokio::fs::remove_file(&image).await {
            Ok(()) => tracing::info!(image = %image.display(), "removed an image that nobody waits for"),
            Err(error) => tracing::debug!(%error, "could not remove an image"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ironyard_db::Db;
    use ironyard_types::SystemClock;

    use super::*;
    use crate::tasks::{
        jobs::{Firmware, Job, Source},
        steps::Target,
    };

    #[tokio::test]
    async fn what_an_operation_waits_for_stays() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("db").display());
        let db = Db::open(&ironyard_db::Config::url(url), crate::MIGRATIONS).await.unwrap();
        let clock = Arc::new(SystemClock);
        let cx = Context { db, clock };
        let spool = folder.path().join("spool");
        std::fs::create_dir(&spool).unwrap();
        for (name, done) in [("running", Some(false)), ("ended", Some(true)), ("orphan", None)] {
            let path = spool.join(name);
            std::fs::write(&path, name).unwrap();
            let Some(done) = done else { continue };
            let job = Job::Firmware(Firmware {
                target: Target::of_bmc("b".into()),
                source: Source::File {
                    path,
                    name: name.into(),
                    bytes: 7,
                },
                targets: vec![],
                apply_time: String::new(),
                component: String::new(),
                version: String::new(),
            });
            let request = serde_json::to_value(&job).unwrap();
            let mut operation = Operation::new(job.verb(), job.label(), job.target().line(), request, String::new());
            operation.done = done;
            let mut tx = cx.db.begin().await.unwrap();
            record::insert(&mut tx, operation, cx.now()).await.unwrap();
            tx.commit().await.unwrap();
        }
        tidy_once(&cx, &spool, OLD).await.unwrap();
        assert_eq!(std::fs::read_dir(&spool).unwrap().count(), 3, "all are too young");
        tidy_once(&cx, &spool, Duration::ZERO).await.unwrap();
        let left: Vec<_> = std::fs::read_dir(&spool).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["running"]);
    }
}
