//! Addresses: which Telegram takes as the target of a link, and how the others are written out.

use std::borrow::Cow;

use url::Url;

/// A longer `data:` address is content, not an address.
const LONGEST_DATA: usize = 100;

/// Whether Telegram accepts `url` as the target of a link: it refuses a whole message with a host that has no dot, or one
/// of other characters (<https://core.telegram.org/bots/api#messageentity>, and by what it answers).
pub(super) fn is_linkable(url: &str) -> bool {
    let Ok(parsed) = Url::parse(url) else { return false };
    match parsed.scheme() {
        "tg" => true,
        "http" | "https" => parsed.host_str().is_some_and(is_host) && !url.contains(char::is_whitespace),
        _ => false,
    }
}

fn is_host(host: &str) -> bool {
    let labels: Vec<&str> = host.split('.').collect();
    let is_label = |label: &&str| {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        !label.is_empty() && label.len() <= 63 && label.chars().all(is_part)
    };
    labels.len() > 1 && labels.iter().all(is_label)
}

/// Whether `target` says where it leads: without any sign of an address the brackets are text.
pub(super) fn is_target(target: &str) -> bool {
    target.contains(['.', '/', '#', ':', '@', '?'])
}

/// `url` as it is written beside its label.
pub(super) fn written(url: &str) -> Cow<'_, str> {
    let address = url.strip_prefix("mailto:").unwrap_or(url);
    match address.split_once(',') {
        Some((kind, _)) if address.starts_with("data:") && address.len() > LONGEST_DATA => {
            Cow::Owned(format!("{kind},…"))
        }
        _ => Cow::Borrowed(address),
    }
}
