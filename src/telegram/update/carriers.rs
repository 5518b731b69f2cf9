//! Text that a message carries in another field than `text` and `caption`, by one table of places.

use serde_json::Value;

use super::fields::Fields;

/// Writes out what a field carries.
type Write = fn(&Value) -> String;

/// The fields that carry text, the more specific before what accompanies it (a venue has a location), and how each is
/// written out (<https://core.telegram.org/bots/api#message>).
const CARRIERS: [(&str, Write); 6] = [
    ("rich_message", |message| blocks(&message["blocks"])),
    ("poll", |poll| with_items(&poll["question"], &poll["options"])),
    ("checklist", |list| with_items(&list["title"], &list["tasks"])),
    ("contact", |contact| joined(&[&contact["first_name"], &contact["last_name"], &contact["phone_number"]], " ")),
    ("venue", |venue| joined(&[&venue["title"], &venue["address"], &Value::from(place(&venue["location"]))], ", ")),
    ("location", place),
];

/// What a block of a rich message may consist of, in the order in which it is read.
const PARTS: [&str; 9] =
    ["summary", "text", "expression", "items", "blocks", "cells", "alternative_text", "caption", "credit"];

/// The text that a message carries elsewhere; `None` if there is none.
pub(super) fn text(message: &Fields<'_>) -> Option<String> {
    CARRIERS.iter().find_map(|(name, write)| {
        // Nested deeper than this parser goes it is no text that anybody wrote.
        let value: Value = serde_json::from_str(message.get(name)?.get()).ok()?;
        Some(write(&value).trim().to_owned()).filter(|text| !text.is_empty())
    })
}

/// A text with a list below it.
fn with_items(head: &Value, items: &Value) -> String {
    let items = items.as_array().into_iter().flatten().map(|item| format!("\n- {}", inline(&item["text"])));
    std::iter::once(inline(head)).chain(items).collect()
}

/// Those that are there, in one line.
fn joined(values: &[&Value], separator: &str) -> String {
    let texts = values.iter().map(|value| inline(value)).filter(|text| !text.is_empty());
    texts.collect::<Vec<_>>().join(separator)
}

fn place(location: &Value) -> String {
    match (location["latitude"].as_f64(), location["longitude"].as_f64()) {
        (Some(latitude), Some(longitude)) => format!("{latitude}, {longitude}"),
        _ => String::new(),
    }
}

/// Rich text in one piece: a string, a list of pieces, or an object around a piece
/// (<https://core.telegram.org/bots/api#richtext>).
fn inline(text: &Value) -> String {
    match text {
        Value::String(text) => text.clone(),
        Value::Array(pieces) => pieces.iter().map(inline).collect(),
        Value::Object(_) => PARTS.iter().map(|part| inline(&text[*part])).collect(),
        _ => String::new(),
    }
}

/// Blocks below one another (<https://core.telegram.org/bots/api#richblock>).
fn blocks(list: &Value) -> String {
    let lines = list.as_array().into_iter().flatten().map(block).filter(|text| !text.trim().is_empty());
    lines.collect::<Vec<_>>().join("\n")
}

fn block(block: &Value) -> String {
    let parts = PARTS.iter().map(|part| (*part, &block[*part])).filter(|(_, value)| !value.is_null());
    let lines = parts.map(|(part, value)| match part {
        "blocks" => blocks(value),
        "items" => {
            let items = value.as_array().into_iter().flatten();
            items.map(|item| format!("- {}", self::block(item))).collect::<Vec<_>>().join("\n")
        }
        "cells" => {
            let rows = value.as_array().into_iter().flatten();
            let row = |row: &Value| row.as_array().into_iter().flatten().map(inline).collect::<Vec<_>>().join(" | ");
            rows.map(row).collect::<Vec<_>>().join("\n")
        }
        "caption" if value.is_object() => self::block(value),
        _ => inline(value),
    });
    lines.filter(|text| !text.trim().is_empty()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(message: &str) -> Option<String> {
        text(&Fields::parse(message).unwrap())
    }

    #[test]
    fn each_carrier_is_read_as_text() {
        for (message, expected) in [
            (
                r#"{"rich_message":{"blocks":[{"type":"heading","size":2,"text":"Plan"},
                    {"type":"paragraph","text":["Please ",{"type":"bold","text":"shorten"}," this list."]},
                    {"type":"list","items":[{"blocks":[{"type":"paragraph","text":"one"}]},
                                            {"blocks":[{"type":"paragraph","text":"two"}]}]},
                    {"type":"table","cells":[[{"text":"a"},{"text":"b"}],[{"text":"1"},{"text":["2"]}]],"caption":"T"},
                    {"type":"divider"},
                    {"type":"details","summary":"More","blocks":[{"type":"preformatted","text":"ls -l"}]},
                    {"type":"mathematical_expression","expression":"x^2"},
                    {"type":"photo","photo":[{"file_id":"f"}],"caption":{"text":"A cat","credit":"Ada"}}]}}"#,
                "Plan\nPlease shorten this list.\n- one\n- two\na | b\n1 | 2\nT\nMore\nls -l\nx^2\nA cat\nAda",
            ),
            (r#"{"poll":{"question":"A or B?","options":[{"text":"A"},{"text":"B"}]}}"#, "A or B?\n- A\n- B"),
            (r#"{"checklist":{"title":"To do","tasks":[{"id":1,"text":"Buy milk"}]}}"#, "To do\n- Buy milk"),
            (r#"{"contact":{"phone_number":"+44 20","first_name":"Ada","user_id":5}}"#, "Ada +44 20"),
            (r#"{"location":{"latitude":1.5,"longitude":-2.25}}"#, "1.5, -2.25"),
            (
                r#"{"location":{"latitude":1,"longitude":2},
                    "venue":{"title":"Café","address":"Main St 1","location":{"latitude":1,"longitude":2}}}"#,
                "Café, Main St 1, 1, 2",
            ),
        ] {
            assert_eq!(of(message).as_deref(), Some(expected), "{message}");
        }
    }

    #[test]
    fn what_carries_no_text_gives_none_and_oddities_do_not_panic() {
        for message in [
            "{}",
            r#"{"sticker":{"emoji":"x"}}"#,
            r#"{"rich_message":7}"#,
            r#"{"rich_message":{"blocks":[{"type":"divider"},7,[],null]}}"#,
            r#"{"poll":{"options":7}}"#,
            r#"{"contact":[]}"#,
            r#"{"location":{"latitude":"x"}}"#,
        ] {
            assert_eq!(of(message), None, "{message}");
        }
        let deep = format!(r#"{{"rich_message":{{"blocks":{}{}}}}}"#, "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(of(&deep), None);
    }
}
