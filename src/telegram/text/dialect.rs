//! The Markdown that models write.

use pulldown_cmark::Options;

/// What is understood besides CommonMark.
pub(super) fn options() -> Options {
    Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TABLES | Options::ENABLE_TASKLISTS
}
