//! What a model server answers, in the dialects of OpenAI's relatives and of Databricks.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde::Deserialize;
use serde_json::Value;

use super::{ChatAnswer, ModelFault};
use crate::clock::Clock;

/// How much of an error's text is kept, in characters.
const MESSAGE_LIMIT: usize = 300;

#[derive(Deserialize)]
struct Completion {
    model: Option<String>,
    choices: Vec<Choice>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<Value>,
    refusal: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: Option<i64>,
    completion_tokens: Option<i64>,
}

/// The answer in a 200. Anything that is none may be the server's trouble or the row's.
pub(super) fn answer(body: &[u8]) -> Result<ChatAnswer, ModelFault> {
    let failing = |message: String| ModelFault::Failing { retry_after: None, message };
    let completion: Completion =
        serde_json::from_slice(body).map_err(|error| failing(format!("the model's answer cannot be read: {error}")))?;
    let Some(choice) = completion.choices.into_iter().next() else {
        return Err(failing("the model's answer has no choices".to_owned()));
    };
    let text = choice.message.content.as_ref().map(text_of).filter(|text| !text.trim().is_empty());
    let text = text.or(choice.message.refusal).unwrap_or_default();
    let finish_reason = choice.finish_reason;
    if text.is_empty() && !matches!(finish_reason.as_deref(), Some("length" | "content_filter")) {
        return Err(failing("the model gave an empty answer".to_owned()));
    }
    let usage = completion.usage.as_ref();
    Ok(ChatAnswer {
        text,
        model: completion.model,
        finish_reason,
        input_tokens: usage.and_then(|usage| usage.prompt_tokens),
        output_tokens: usage.and_then(|usage| usage.completion_tokens),
    })
}

/// The text of a content that is a string or a list of blocks. Reasoning is not for the user.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => {
            let is_text =
                |block: &&Value| block["type"].as_str().is_none_or(|kind| matches!(kind, "text" | "output_text"));
            blocks.iter().filter(is_text).filter_map(|block| block["text"].as_str()).collect()
        }
        _ => String::new(),
    }
}

/// What an answer other than 200 means for the caller.
pub(super) fn fault(status: StatusCode, headers: &HeaderMap, body: &[u8], clock: &Clock) -> ModelFault {
    let message = format!("the model server answered {}: {}", status.as_u16(), error_text(body));
    let retry_after = retry_after(headers, clock);
    match status.as_u16() {
        408 | 429 => ModelFault::Unavailable { retry_after, message },
        401 | 403 => {
            ModelFault::Misconfigured { message: format!("{message}; check LLM_API_KEY or the Databricks token") }
        }
        404 => ModelFault::Misconfigured { message: format!("{message}; check LLM_BASE_URL and the model's name") },
        500.. => ModelFault::Failing { retry_after, message },
        _ => ModelFault::Rejected { message },
    }
}

fn error_text(body: &[u8]) -> String {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let known = parsed.as_ref().and_then(|value| {
        let openai = value["error"]["message"].as_str().or(value["error"].as_str());
        openai.or(value["message"].as_str()).map(str::to_owned)
    });
    let text = known.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MESSAGE_LIMIT).collect()
}

/// Seconds, or an HTTP date (<https://www.rfc-editor.org/rfc/rfc9110#field.retry-after>).
fn retry_after(headers: &HeaderMap, clock: &Clock) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let until = httpdate::parse_http_date(value).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    let now = Duration::from_micros(u64::try_from(clock.now().as_micros()).ok()?);
    Some(until.saturating_sub(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_may_be_a_string_or_blocks_with_the_reasoning_dropped() {
        let blocks = br#"{"choices":[{"message":{"content":[{"type":"reasoning","summary":[]},
            {"type":"text","text":"Hello"}]},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#;
        let answer = answer(blocks).unwrap();
        assert_eq!((answer.text.as_str(), answer.input_tokens, answer.output_tokens), ("Hello", Some(3), Some(1)));
        let plain = super::answer(br#"{"model":"m","choices":[{"message":{"content":"Hi"}}]}"#).unwrap();
        assert_eq!((plain.text.as_str(), plain.model.as_deref()), ("Hi", Some("m")));
    }

    #[test]
    fn an_answer_that_is_none_is_a_fault() {
        for body in ["", "[]", r#"{"choices":[]}"#, r#"{"choices":[{"message":{"content":""}}]}"#] {
            assert!(matches!(answer(body.as_bytes()), Err(ModelFault::Failing { .. })), "{body}");
        }
    }

    #[test]
    fn a_refusal_is_the_answer() {
        let refused = answer(br#"{"choices":[{"message":{"content":null,"refusal":"I cannot."}}]}"#).unwrap();
        assert_eq!(refused.text, "I cannot.");
    }

    #[test]
    fn both_dialects_of_errors_are_read() {
        let clock = Clock::system();
        let headers = HeaderMap::new();
        let openai = fault(StatusCode::BAD_REQUEST, &headers, br#"{"error":{"message":"too long"}}"#, &clock);
        assert_eq!(openai, ModelFault::Rejected { message: "the model server answered 400: too long".to_owned() });
        let databricks =
            fault(StatusCode::BAD_GATEWAY, &headers, br#"{"error_code":"X","message":"endpoint is\n down"}"#, &clock);
        let message = "the model server answered 502: endpoint is down".to_owned();
        assert_eq!(databricks, ModelFault::Failing { retry_after: None, message });
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let clock = Clock::system();
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, "7".parse().unwrap());
        assert_eq!(retry_after(&headers, &clock), Some(Duration::from_secs(7)));
        headers.insert(RETRY_AFTER, "Wed, 21 Oct 2015 07:28:00 GMT".parse().unwrap());
        assert_eq!(retry_after(&headers, &clock), Some(Duration::ZERO));
        headers.insert(RETRY_AFTER, "soon".parse().unwrap());
        assert_eq!(retry_after(&headers, &clock), None);
    }
}
