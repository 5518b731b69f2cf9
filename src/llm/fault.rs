//! What a status other than 200 means for the caller, and how to fix it where that is known.

use std::time::{Duration, UNIX_EPOCH};

use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde_json::Value;

use super::ModelFault;
use super::exchange::Reply;
use crate::clock::Clock;
use crate::redact::beginning;

/// How much of a server's message is kept, in characters.
const MESSAGE_LIMIT: usize = 300;
/// Nobody is made to wait longer than this before asking again.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);
/// Codes of a 400 that point to a setting and not to the row; some OpenAI-compatible servers have no 401 and no 404.
const MISCONFIGURED_CODES: [&str; 2] = ["invalid_api_key", "model_not_found"];

/// What the errors about a conversation that is too long have in common.
const TOO_LONG: [&str; 11] = [
    "context_length",
    "context length",
    "context window",
    "context size",
    "context limit",
    "prompt is too long",
    "prompt too long",
    "input is too long",
    "input token count",
    "too many tokens",
    "reduce the length",
];

/// What a person should check.
#[derive(Clone, Debug)]
pub(super) struct Fixes {
    /// When access is denied.
    pub(super) key: &'static str,
    /// When there is nothing at the address.
    pub(super) place: String,
}

/// The fault for a response that is not a 200.
pub(super) fn of_status(reply: &Reply, fixes: &Fixes, clock: &Clock) -> ModelFault {
    let retry_after = retry_after(&reply.headers, clock);
    let message = format!("the model server answered {}: {}", reply.status.as_u16(), error_text(&reply.body));
    let misconfigured = |fix: &str| ModelFault::Misconfigured { message: format!("{message}; {fix}") };
    let code = error_code(&reply.body).unwrap_or_default();
    match reply.status.as_u16() {
        401 | 403 => misconfigured(fixes.key),
        402 => misconfigured("add credit to the account"),
        404 | 405 => misconfigured(&fixes.place),
        407 => misconfigured("check the proxy in HTTPS_PROXY"),
        // Redirects are not followed: they would send the key and the chat somewhere else.
        300..=399 => misconfigured(&fixes.place),
        400 if MISCONFIGURED_CODES.contains(&code.as_str()) => {
            misconfigured(if code == "invalid_api_key" { fixes.key } else { &fixes.place })
        }
        429 if code == "insufficient_quota" => {
            ModelFault::Unavailable { retry_after, message: format!("{message}; add credit to the account") }
        }
        400 | 413 | 422 if is_about_length(&reply.body) => ModelFault::TooLong { message },
        408 | 429 => ModelFault::Unavailable { retry_after, message },
        // A lock, a replay or a cancelled upstream: about the moment, not about the row.
        409 | 425 | 499 => ModelFault::Failing { retry_after, message },
        400..=499 => ModelFault::Rejected { message },
        _ => ModelFault::Failing { retry_after, message },
    }
}

/// Whether an error says that the conversation is too long, in the words of OpenAI, vLLM, Anthropic, Gemini, llama.cpp,
/// Mistral or Databricks.
fn is_about_length(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body).to_lowercase();
    TOO_LONG.iter().any(|words| text.contains(words))
}

/// The message of an error, in one line: `{"error": {"message", "code"}}`, `{"error_code", "message"}`, OAuth's
/// `{"error", "error_description"}`, or plain text.
///
/// Servers repeat what they were sent: secrets are hidden before anything is truncated.
pub(super) fn error_text(body: &[u8]) -> String {
    let text = known_text(body).unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.is_empty() { "no message".to_owned() } else { beginning(&line, MESSAGE_LIMIT) }
}

fn known_text(body: &[u8]) -> Option<String> {
    let error = error_object(body)?;
    let inner = &error["error"];
    let message = inner["message"].as_str().or(error["message"].as_str()).or(error["error_description"].as_str());
    let message = message.or(inner.as_str()).or(error["detail"].as_str())?;
    Some(match error_code(body).filter(|code| !message.contains(code.as_str())) {
        Some(code) => format!("{code}: {message}"),
        None => message.to_owned(),
    })
}

/// The machine-readable code of an error, if it has one.
fn error_code(body: &[u8]) -> Option<String> {
    let error = error_object(body)?;
    let inner = &error["error"];
    let code = inner["code"].as_str().or(inner["type"].as_str()).or(error["error_code"].as_str());
    code.or(inner.as_str().filter(|_| error["error_description"].is_string())).map(str::to_owned)
}

/// The object of an error; Google wraps it into a list.
fn error_object(body: &[u8]) -> Option<Value> {
    match serde_json::from_slice(body).ok()? {
        Value::Array(errors) => errors.into_iter().next(),
        error => Some(error),
    }
}

/// Seconds, or an HTTP date (<https://www.rfc-editor.org/rfc/rfc9110#field.retry-after>).
pub(super) fn retry_after(headers: &HeaderMap, clock: &Clock) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if let Ok(seconds) = value.parse::<f64>() {
        Duration::try_from_secs_f64(seconds).ok()?
    } else {
        let until = httpdate::parse_http_date(value).ok()?.duration_since(UNIX_EPOCH).ok()?;
        until.saturating_sub(Duration::from_micros(u64::try_from(clock.now().as_micros()).ok()?))
    };
    Some(wait.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::StatusCode;

    use super::*;

    fn of(status: u16, body: &str) -> ModelFault {
        let status = StatusCode::from_u16(status).unwrap();
        let reply = Reply { status, headers: HeaderMap::new(), body: body.as_bytes().to_vec() };
        let fixes = Fixes { key: "check the key", place: "check the place".to_owned() };
        of_status(&reply, &fixes, &Clock::system())
    }

    fn after(value: &str, clock: &Clock) -> Option<Duration> {
        retry_after(&HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]), clock)
    }

    #[test]
    fn every_status_is_the_fault_that_says_what_to_do() {
        for status in 300..600 {
            let fault = of(status, "");
            let fits = match status {
                408 | 429 => matches!(fault, ModelFault::Unavailable { .. }),
                300..=399 | 401..=405 | 407 => matches!(fault, ModelFault::Misconfigured { .. }),
                409 | 425 | 499 | 500.. => matches!(fault, ModelFault::Failing { .. }),
                _ => matches!(fault, ModelFault::Rejected { .. }),
            };
            assert!(fits, "{status}: {fault:?}");
        }
    }

    #[test]
    fn a_conversation_that_is_too_long_is_told_apart_in_every_dialect() {
        for text in [
            "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens",
            r#"{"error":{"message":"too long","type":"invalid_request_error","code":"context_length_exceeded"}}"#,
            "prompt is too long: 250000 tokens > 200000 maximum",
            "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
            "the request exceeds the available context size, try increasing it",
            "Prompt contains 40000 tokens, too large for model with 32768 maximum context length",
        ] {
            assert!(matches!(of(400, text), ModelFault::TooLong { .. }), "{text}");
        }
        for text in ["", "messages must alternate", "max_tokens must be positive"] {
            assert!(matches!(of(400, text), ModelFault::Rejected { .. }), "{text}");
        }
        assert!(matches!(of(500, "context length"), ModelFault::Failing { .. }));
    }

    #[test]
    fn what_a_person_can_fix_comes_with_the_fix() {
        let fixed = |status, body: &str, fix: &str| match of(status, body) {
            ModelFault::Misconfigured { message } | ModelFault::Unavailable { message, .. } => {
                assert!(message.ends_with(fix), "{message}");
            }
            other => panic!("{other:?}"),
        };
        fixed(401, "", "check the key");
        fixed(404, "", "check the place");
        fixed(307, "", "check the place");
        fixed(400, r#"{"error":{"message":"no","code":"invalid_api_key"}}"#, "check the key");
        fixed(400, r#"[{"error":{"message":"no","code":"model_not_found"}}]"#, "check the place");
        fixed(402, "Insufficient Balance", "add credit to the account");
        fixed(429, r#"{"error":{"message":"no","code":"insufficient_quota"}}"#, "add credit to the account");
        fixed(429, r#"{"error":{"message":"no","type":"insufficient_quota"}}"#, "add credit to the account");
    }

    #[test]
    fn the_message_of_each_dialect_is_told_in_one_line() {
        let same = |body: &str, text: &str| assert_eq!(error_text(body.as_bytes()), text);
        same("", "no message");
        same("  \n", "no message");
        same("{}", "{}");
        same("upstream\n  connect   error", "upstream connect error");
        same(
            r#"{"error":{"message":"too long","type":"t","code":"context_length_exceeded"}}"#,
            "context_length_exceeded: too long",
        );
        same(r#"{"error":{"message":"too long","type":"invalid","code":null}}"#, "invalid: too long");
        same(r#"{"error":{"message":"denied","code":403}}"#, "denied");
        same(
            r#"{"error_code":"BAD_REQUEST","message":"Extra inputs\n are not permitted"}"#,
            "BAD_REQUEST: Extra inputs are not permitted",
        );
        same(r#"{"error_code":403,"message":"Invalid access token."}"#, "Invalid access token.");
        same(r#"{"error_code":"X","message":"X: once"}"#, "X: once");
        same(r#"{"error":"invalid_client","error_description":"no such app"}"#, "invalid_client: no such app");
        same(r#"{"error":"model is loading"}"#, "model is loading");
        same(r#"{"detail":"Not Found"}"#, "Not Found");
        assert_eq!(error_text("ä".repeat(5_000).as_bytes()).chars().count(), MESSAGE_LIMIT);
        assert!(!error_text(&[0xff, 0xfe]).is_empty());
    }

    #[test]
    fn a_key_that_a_server_repeats_is_not_passed_on() {
        crate::redact::know("sk-echoed-canary");
        let echoes = [
            "the key sk-echoed-canary is none",
            r#"{"error":{"message":"bad sk-echoed-canary","code":"sk-echoed-canary"}}"#,
            "<p>sk&#45;echoed-canary</p>",
            "it begins with sk-echoe",
        ];
        for body in echoes {
            let shown = format!("{:?}", of(401, body));
            assert!(!shown.contains("echoe") && shown.contains("***"), "{shown}");
        }
        // Not even its first half, if it is where the text is truncated.
        let long = format!("{}sk-echoed-canary", "x".repeat(MESSAGE_LIMIT - 9));
        assert!(!format!("{:?}", of(500, &long)).contains("sk-e"));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_never_long() {
        let clock = Clock::system();
        assert_eq!(after("7", &clock), Some(Duration::from_secs(7)));
        assert_eq!(after(" 0.5 ", &clock), Some(Duration::from_millis(500)));
        assert_eq!(after("999999999999", &clock), Some(LONGEST_WAIT));
        assert_eq!(after("Wed, 21 Oct 2015 07:28:00 GMT", &clock), Some(Duration::ZERO));
        assert_eq!(after("Wed, 21 Oct 2099 07:28:00 GMT", &clock), Some(LONGEST_WAIT));
        for nonsense in ["soon", "-1", "NaN", "inf", "1e300", ""] {
            assert_eq!(after(nonsense, &clock), None, "{nonsense}");
        }
        let soon = clock.now().plus(Duration::from_secs(60)).as_micros() / 1_000_000;
        let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(soon.unsigned_abs()));
        let wait = after(&date, &clock).unwrap();
        assert!((Duration::from_secs(50)..=Duration::from_secs(60)).contains(&wait), "{wait:?}");
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic_or_long(status in 300_u16..600, body in ".{0,400}") {
            let shown = format!("{:?}", of(status, &body));
            prop_assert!(shown.chars().count() < 12 * MESSAGE_LIMIT);
        }
    }
}
