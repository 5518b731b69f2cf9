//! Bodies that are nearly JSON: servers and proxies write what parsers refuse, around an answer that is good.

use std::borrow::Cow;

use serde::de::Error as _;
use serde_json::{Error, Map, Value, json};

/// The body of a 200 as JSON, as far as it can be understood; an event stream becomes the answer that it adds up to.
///
/// # Errors
/// Those of the parser, or why a stream adds up to nothing.
pub(super) fn parse(body: &[u8]) -> serde_json::Result<Value> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    match serde_json::from_slice(body) {
        Ok(value) => Ok(value),
        Err(error) => {
            let text = String::from_utf8_lossy(body);
            let text = text.trim_start();
            let is_stream = ["data:", "event:", ":"].iter().any(|start| text.starts_with(start));
            if is_stream { streamed(text) } else { serde_json::from_str(&repaired(text)).map_err(|_| error) }
        }
    }
}

/// Text with numbers that JSON does not have as null, and halves of characters replaced.
fn repaired(text: &str) -> String {
    let (mut out, mut rest, mut is_string) = (String::with_capacity(text.len()), text, false);
    while let Some(c) = rest.chars().next() {
        let (taken, with): (usize, Cow<'_, str>) = match c {
            '"' => {
                is_string = !is_string;
                (1, "\"".into())
            }
            '\\' if is_string => escape(rest),
            _ if is_string => (c.len_utf8(), rest[..c.len_utf8()].into()),
            _ => match ["-Infinity", "Infinity", "NaN"].into_iter().find(|word| rest.starts_with(word)) {
                Some(word) => (word.len(), "null".into()),
                None => (c.len_utf8(), rest[..c.len_utf8()].into()),
            },
        };
        out.push_str(&with);
        rest = &rest[taken..];
    }
    out
}

/// The escape that `rest` begins with: its length, and what stands for it.
fn escape(rest: &str) -> (usize, Cow<'_, str>) {
    let unit = |at: usize| {
        let digits = rest.get(at..at + 6)?.strip_prefix("\\u")?;
        u32::from_str_radix(digits, 16).ok()
    };
    match (unit(0), unit(6)) {
        (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (12, rest[..12].into()),
        (Some(0xd800..=0xdfff), _) => (6, "\\ufffd".into()),
        _ => {
            let length = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
            (length, rest[..length].into())
        }
    }
}

/// The completion that the events of a stream add up to
/// (<https://platform.openai.com/docs/api-reference/chat-streaming>). Its content is the list of what the events
/// brought: texts and blocks alike; a whole message in the last event counts instead.
fn streamed(text: &str) -> serde_json::Result<Value> {
    let (mut content, mut refusal) = (Vec::new(), String::new());
    let mut completion = json!({"choices": [{"message": {}, "finish_reason": null}]});
    for data in text.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim) {
        if data == "[DONE]" {
            break;
        }
        let event: Map<String, Value> = serde_json::from_str(data)?;
        for (name, value) in event.iter().filter(|(name, value)| *name != "choices" && !value.is_null()) {
            completion[name] = value.clone();
        }
        let Some(choice) = event.get("choices").map(|choices| &choices[0]) else { continue };
        let (delta, message) = (&choice["delta"], &choice["message"]);
        let is_last = choice["finish_reason"].is_string();
        if is_last {
            completion["choices"][0]["finish_reason"] = choice["finish_reason"].clone();
        }
        let says = |said: &Value| ["content", "refusal"].iter().any(|field| !pieces(&said[*field]).is_empty());
        let is_whole = is_last && says(message);
        if is_whole {
            (content, refusal) = (Vec::new(), String::new());
        } else if says(message) && !says(delta) {
            // Each of them may be a piece, or all there is so far.
            return Err(Error::custom("an event before the last one of the stream has a message instead of a delta"));
        }
        let said = if is_whole { message } else { delta };
        content.extend_from_slice(pieces(&said["content"]));
        refusal.push_str(said["refusal"].as_str().unwrap_or_default());
    }
    completion["choices"][0]["message"] = json!({"content": content, "refusal": refusal});
    if completion["choices"][0]["finish_reason"].is_null() && completion["error"].is_null() {
        return Err(Error::custom("the event stream ends in the middle of the answer"));
    }
    Ok(completion)
}

/// What a content consists of.
fn pieces(content: &Value) -> &[Value] {
    match content {
        Value::Null => &[],
        Value::String(text) if text.is_empty() => &[],
        Value::Array(blocks) => blocks,
        content => std::slice::from_ref(content),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_surrounds_a_good_answer_does_no_harm() {
        for (body, expected) in [
            ("\u{feff}{\"a\": 1}", json!({"a": 1})),
            (
                r#"{"a": NaN, "b": [-Infinity, Infinity], "c": "NaN"}"#,
                json!({"a": null, "b": [null, null], "c": "NaN"}),
            ),
            (r#"{"a": "Good \ud83d"}"#, json!({"a": "Good \u{fffd}"})),
            (r#"{"a": "\ude00 \ud83d\ude00 \\ud83d \""}"#, json!({"a": "\u{fffd} 😀 \\ud83d \""})),
        ] {
            assert_eq!(parse(body.as_bytes()).unwrap(), expected, "{body}");
        }
        for body in ["", "<html>", "{\"a\": \"cut", "data: <html>", "data: [DONE]", ": ping"] {
            assert!(parse(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn an_event_stream_is_put_together() {
        let delta = |content: &str, reason: Value| json!({"model": "m", "choices": [{"delta": {"content": content}, "finish_reason": reason}]});
        let stream = format!(
            ": ping\n\ndata: {}\n\ndata:{}\n\ndata: [DONE]\n\n",
            delta("Hel", Value::Null),
            delta("lo", json!("stop"))
        );
        let whole = parse(stream.as_bytes()).unwrap();
        assert_eq!(whole["choices"][0]["message"]["content"], json!(["Hel", "lo"]));
        assert_eq!((&whole["choices"][0]["finish_reason"], &whole["model"]), (&json!("stop"), &json!("m")));
        let cut = format!("data: {}\n\n", delta("Hel", Value::Null));
        let error = parse(cut.as_bytes()).unwrap_err().to_string();
        assert_eq!(error, "the event stream ends in the middle of the answer");
    }

    proptest! {
        #[test]
        fn what_is_json_stays_as_it_is(text in "\\PC{0,40}", number in any::<i64>()) {
            let value = json!({"text": text, "number": number});
            prop_assert_eq!(parse(value.to_string().as_bytes()).unwrap(), value.clone());
            let repaired: Value = serde_json::from_str(&repaired(&value.to_string())).unwrap();
            prop_assert_eq!(repaired, value);
        }
    }
}
