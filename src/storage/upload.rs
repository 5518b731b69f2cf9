//! Large puts in parts: written to a staging file, persisted and named at the end.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use object_store::{MultipartUpload, PutPayload, PutResult, Result, UploadPart};

use super::fault::{blocking, store_error};
use super::root::Root;
use super::staging::{Publish, finish_staged, folder_of, persist_file, publish_staged, staging_in};

/// An upload in parts to a local file. What was not completed leaves a staging file, which is swept.
#[derive(Debug)]
pub(super) struct StagedUpload {
    root: Arc<Root>,
    file: PathBuf,
    staging: PathBuf,
    handle: Arc<File>,
    offset: u64,
}

impl StagedUpload {
    pub(super) async fn start(root: Arc<Root>, file: PathBuf) -> Result<Self> {
        blocking(move || {
            let (staging, handle) = root.guarded(|folders| {
                folders.inside(folder_of(&file), |folder| {
                    let staging = staging_in(folder);
                    let handle = folders.disk().create(&staging).map_err(|error| store_error(&staging, error))?;
                    Ok((staging, handle))
                })
            })?;
            Ok(Self { root, file, staging, handle: Arc::new(handle), offset: 0 })
        })
        .await
    }
}

#[async_trait]
impl MultipartUpload for StagedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (handle, staging, offset) = (Arc::clone(&self.handle), self.staging.clone(), self.offset);
        let root = Arc::clone(&self.root);
        self.offset += data.content_length() as u64;
        Box::pin(blocking(move || {
            // Parts may be written side by side, so each has a cursor of its own.
            let mut file =
                OpenOptions::new().write(true).open(&staging).map_err(|error| store_error(&staging, error))?;
            file.seek(SeekFrom::Start(offset)).map_err(|error| store_error(&staging, error))?;
            for chunk in &data {
                root.folders().disk().write(&file, &staging, chunk).map_err(|error| store_error(&staging, error))?;
            }
            drop(handle);
            Ok(())
        }))
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let (handle, staging, file) = (Arc::clone(&self.handle), self.staging.clone(), self.file.clone());
        let root = Arc::clone(&self.root);
        blocking(move || {
            root.guarded(|folders| {
                let disk = folders.disk();
                let outcome = persist_file(disk, &handle, &staging)
                    .and_then(|()| publish_staged(disk, &staging, &file, Publish::Overwrite));
                finish_staged(disk, &staging, &file, outcome)
            })
        })
        .await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn abort(&mut self) -> Result<()> {
        let (root, staging) = (Arc::clone(&self.root), self.staging.clone());
        blocking(move || root.folders().disk().unlink(&staging).map_err(|error| store_error(&staging, error))).await
    }
}
