//! Images that are pushed: received into a folder, checked, and kept only for an operation.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use ironyard_proto::bmc::{self as pb, push_firmware_request::Part};
use ironyard_rpc::{Fault, Reason};
use ironyard_types::random_id;
use tokio::io::AsyncWriteExt;
use tonic::{Status, Streaming};

/// Where pushed images wait.
pub struct Spool {
    /// Folder.
    pub folder: PathBuf,
    /// Largest image.
    pub max_bytes: u64,
}

impl Spool {
    /// A place for an image.
    pub(super) fn place(&self) -> Spooled {
        Spooled(Some(self.folder.join(random_id())))
    }

    /// Writes the bytes of a push to a file and checks them.
    pub(super) async fn receive(&self, stream: &mut Streaming<pb::PushFirmwareRequest>, path: &Path, sha256: &str) -> Result<u64, Status> {
        let spool = |e: std::io::Error| Fault::new(Reason::Internal, format!("the image cannot be stored: {}", e.kind()));
        tokio::fs::create_dir_all(&self.folder).await.map_err(spool)?;
        let mut file = tokio::fs::File::create(path).await.map_err(spool)?;
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut bytes = 0_u64;
        while let Some(message) = stream.message().await? {
            let Some(Part::Data(data)) = message.part else {
                return Err(Fault::field("part", "after the head come bytes").into());
            };
            bytes += data.len() as u64;
            if bytes > self.max_bytes {
                let why = format!(
                    "the image is larger than the {} bytes that gateway.max_image_bytes allows",
                    self.max_bytes
                );
                return Err(Fault::field("data", why).into());
            }
            hash.update(&data);
            file.write_all(&data).await.map_err(spool)?;
        }
        file.sync_all().await.map_err(spool)?;
        let got = hex::encode(hash.finish());
        if !got.eq_ignore_ascii_case(sha256) {
            return Err(Fault::field("head.sha256", format!("the bytes have {got}, not {sha256}")).into());
        }
        Ok(bytes)
    }
}

/// An image that is being received: it goes with the call, whether that fails or its caller hangs up.
pub(super) struct Spooled(Option<PathBuf>);

impl Spooled {
    /// Where it is.
    pub(super) fn path(&self) -> Option<&PathBuf> {
        self.0.as_ref()
    }

    /// It is somebody else's from now on.
    pub(super) fn keep(&mut self) {
        self.0 = None;
    }
}

impl Drop for Spooled {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.take().map(std::fs::remove_file) {
            tracing::debug!(%error, "could not remove an image");
        }
    }
}
