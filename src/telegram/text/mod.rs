//! Text in the form that Telegram accepts: Markdown rendered to text with entities, split into messages.

mod address;
mod dialect;
mod edit;
mod emphasis;
mod prepare;
mod protect;
mod render;
mod rows;
mod split;
mod table;
#[cfg(test)]
mod tests;
mod writer;

use serde::{Deserialize, Serialize};

/// The longest message, in UTF-16 code units after entities are parsed
/// (<https://core.telegram.org/bots/api#sendmessage>).
pub const MESSAGE_LIMIT_UTF16: usize = 4_096;
/// Telegram keeps no more entities than this per message (<https://core.telegram.org/bots/api#sendmessage>).
pub(super) const MAX_ENTITIES: usize = 100;

/// Formatting of a range of text (<https://core.telegram.org/bots/api#messageentity>).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entity {
    /// `bold`, `italic`, `strikethrough`, `code`, `pre`, `text_link`, `blockquote`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it starts, in UTF-16 code units.
    pub offset: usize,
    /// How long it is, in UTF-16 code units.
    pub length: usize,
    /// Of a `text_link`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub url: Option<String>,
    /// Of a `pre`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub language: Option<String>,
}

impl Entity {
    /// Its start and end, in UTF-16 code units.
    fn range(&self) -> (usize, usize) {
        (self.offset, self.offset.saturating_add(self.length))
    }
}

/// One message of a reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Its text: not blank, and at most [`MESSAGE_LIMIT_UTF16`] long.
    pub text: String,
    /// Its formatting, by offset.
    pub entities: Vec<Entity>,
}

/// Renders Markdown as models write it and splits it into messages; the same input always gives the same parts. Nothing
/// but white space gives no part.
pub fn render(markdown: &str) -> Vec<Part> {
    split::split(&render::render(markdown), MESSAGE_LIMIT_UTF16)
}

/// The text of a message without its formatting. The addresses of its links are written out beside their labels, as far
/// as there is room for them.
pub fn plain(text: &str, entities: &[Entity]) -> String {
    let mut room = MESSAGE_LIMIT_UTF16.saturating_sub(split::utf16_length(text));
    let mut links: Vec<(usize, String)> = Vec::new();
    for entity in entities {
        let (Some(url), (start, end)) = (&entity.url, entity.range()) else { continue };
        let label: Vec<u16> = text.encode_utf16().skip(start).take(end - start).collect();
        let written = format!(" ({url})");
        let length = split::utf16_length(&written);
        if length <= room && !String::from_utf16_lossy(&label).contains(url.as_str()) {
            room -= length;
            links.push((end, written));
        }
    }
    links.sort_by_key(|(end, _)| *end);
    let (mut plain, mut at, mut links) = (String::with_capacity(text.len()), 0, links.into_iter().peekable());
    for c in text.chars() {
        while let Some((_, written)) = links.next_if(|(end, _)| *end <= at) {
            plain.push_str(&written);
        }
        plain.push(c);
        at += c.len_utf16();
    }
    links.for_each(|(_, written)| plain.push_str(&written));
    plain
}
