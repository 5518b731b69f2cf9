//! The tables as other programs read them.
#![allow(clippy::disallowed_methods)]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Reads all tables with the Python packages `deltalake` and Polars.
pub(crate) async fn read(data: &Path) -> Value {
    python("tests/readers/read.py", &[data.to_str().unwrap()]).await
}

/// Runs one of the readers and returns the last line of its output as JSON.
pub(crate) async fn python(script: &str, arguments: &[&str]) -> Value {
    let python = std::env::var("LAKEGRAM_TEST_PYTHON")
        .expect("LAKEGRAM_TEST_PYTHON names no Python; run tests/run.sh, which sets one up with the readers");
    let mut command = Command::new(python);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).arg(script).args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap()
}
