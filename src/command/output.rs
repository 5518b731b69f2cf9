//! The one door to standard output and standard error.

use std::io::Write;

use comfy_table::{Table, presets};

use super::Verdict;
use crate::error::{Error, Result};

/// Prints text. A reader that is gone (`| head`) is not an error.
pub(super) fn print(text: &str) -> Result<Verdict> {
    let mut stdout = std::io::stdout().lock();
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    match write!(stdout, "{text}{newline}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::unavailable("cannot write to standard output").caused_by(error))
        }
        _ => Ok(Verdict::Done),
    }
}

/// Prints an error as one line. If nobody reads it, there is nobody to tell.
pub(super) fn complain(error: &Error) {
    let _nobody_reads = writeln!(std::io::stderr().lock(), "lakegram: {error}");
}

/// A table for people.
pub(super) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    table.to_string()
}
