//! The one door to standard output and standard error.

use std::io::Write;

use comfy_table::{Table, presets};

use super::Verdict;
use crate::error::{Error, Result};
use crate::redact::redact;

/// Prints text without secrets.
pub(super) fn print(text: &str) -> Result<Verdict> {
    print_as_it_is(&redact(text))
}

/// Prints rows of a table, which belong to the user. A reader that is gone (`| head`) is not an error.
pub(super) fn print_as_it_is(text: &str) -> Result<Verdict> {
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
    let _nobody_reads = writeln!(std::io::stderr().lock(), "lakegram: {}", redact(&error.to_string()));
}

/// Prints the panic of any thread as it would be, without secrets.
pub(super) fn complain_of_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let (text, trace) = (panic.to_string(), std::backtrace::Backtrace::capture());
        let trace = match trace.status() {
            std::backtrace::BacktraceStatus::Captured => format!("\n{trace}"),
            _ => String::new(),
        };
        let _nobody_reads = writeln!(std::io::stderr().lock(), "{}", redact(&format!("{text}{trace}")));
    }));
}

/// A table for people.
pub(super) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(header);
    for row in rows {
        // Before a cell may be cut or wrapped.
        table.add_row(row.iter().map(|cell| redact(cell)));
    }
    table.to_string()
}
