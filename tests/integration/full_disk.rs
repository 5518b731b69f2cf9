//! A disk that runs full: 503 while it is, on without a restart once there is space, nothing lost and nothing doubled.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lakegram::standin::telegram::Receipt;
use serde_json::json;

use crate::support::{PATIENCE, TestApp, rows};

const SIZE: &str = "size=4m";
/// Messages before, and while, the disk is full.
const EACH: i64 = 5;

/// A small disk of its own, for as long as the value lives.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts it; `None` where that is not allowed.
    pub(crate) fn mount(at: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        Self::run(Command::new("mount").args(["-t", "tmpfs", "-o", size, "tmpfs"]), at)
    }

    /// Mounts a folder in another place as well.
    pub(crate) fn bind(folder: &Path, at: &Path) -> Option<Self> {
        Self::run(Command::new("mount").arg("--bind").arg(folder), at)
    }

    fn run(mount: &mut Command, at: &Path) -> Option<Self> {
        mount.arg(at).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then(|| Self(at.to_owned()))
    }

    /// Takes every byte that is left.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = File::create(&path).unwrap();
        while file.write_all(&[1; 4_096]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that a failed test left behind may still be in it.
        let _unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the right to mount; tests/run.sh runs it with --ignored full_disk"]
async fn a_full_disk_answers_503_and_goes_on_once_there_is_space() {
    let app = TestApp::new().await;
    let Some(disk) = SmallDisk::mount(&app.data(), SIZE) else {
        println!("\nSKIPPED: a tmpfs may not be mounted here. What happens on a full disk was not looked at.\n");
        return;
    };
    let running = app.serve().await;
    let mut updates = BTreeSet::new();
    for chat in 1..=EACH {
        updates.insert(app.telegram.user_sends(chat, "there is space"));
    }
    app.wait_for_status(|status| rows(status, 2) == EACH).await;

    let filler = disk.fill();
    for chat in 1..=EACH {
        updates.insert(app.telegram.user_sends(100 + chat, "there is none"));
    }
    let refused = |receipt: &Receipt| matches!(receipt, Receipt::Status(503, _));
    let was_refused =
        app.telegram.wait_for(|ledger| ledger.deliveries().any(|one| refused(&one.receipt)), PATIENCE).await;
    assert!(was_refused, "a full disk was not answered with 503");
    assert_eq!(app.telegram.totals().acked, EACH as u64, "what could not be written was answered 200");

    std::fs::remove_file(filler).unwrap();
    assert!(app.telegram.wait_for_acks(PATIENCE).await, "it did not go on when there was space again");
    let status = app.wait_for_status(|status| rows(status, 2) == 2 * EACH).await;
    assert_eq!((rows(&status, 0), rows(&status, 1)), (2 * EACH, 2 * EACH), "{status:#}");
    assert_eq!(status["tables"][2]["by_status"], json!({"sent": 2 * EACH}));
    assert_eq!(app.telegram.sent().len() as i64, 2 * EACH);
    let found = app.tables().await;
    for table in ["bronze", "silver", "replies"] {
        assert_eq!(found[table]["ids"], json!(updates), "{table}");
    }
    assert_eq!(running.terminate().await, Some(0));
}
