//! Extracts the model's answer from the body of a 200, in the dialects of OpenAI-compatible servers and of Databricks.

use serde_json::Value;

use super::fault::error_text;
use super::{ChatAnswer, ModelFault, body, reasoning};

/// Blocks that are not for the user.
const REASONING: [&str; 4] = ["reasoning", "reasoning_content", "thinking", "redacted_thinking"];
/// Why an answer has no end, in the words that servers use for it: those of OpenAI, Anthropic and Gemini, Mistral, the
/// Responses API and watsonx. In lower case; a reason may go on behind it (`content_filter: RECITATION`).
const CUT_REASONS: [&str; 6] =
    ["length", "max_tokens", "model_length", "max_output_tokens", "model_context_window_exceeded", "token_limit"];
/// Why there may be no text although the model has answered, besides these: asking again would not help.
const FINAL_REASONS: [&str; 10] = [
    "content_filter",
    "content-filter",
    "safety",
    "recitation",
    "prohibited_content",
    "blocklist",
    "spii",
    "image_safety",
    "guardrail",
    "refusal",
];

/// The answer in the body of a 200. If there is none, that may be the server's fault or the row's.
///
/// Only what decides about the answer is parsed strictly: unreadable usage numbers do not invalidate a text.
pub(super) fn answer(bytes: &[u8], kind: &str) -> Result<ChatAnswer, ModelFault> {
    let completion = body::parse(bytes).map_err(|error| {
        let kind = if kind.is_empty() { "no content type" } else { kind };
        failing(format!("cannot parse the model's response ({kind}): {error}: {}", error_text(bytes)))
    })?;
    let choice = &completion["choices"][0];
    let finish_reason = choice["finish_reason"].as_str().map(str::to_owned);
    let is_any_of = |known: &[&str]| finish_reason.as_deref().is_some_and(|reason| is_one_of(reason, known));
    let is_cut = is_any_of(&CUT_REASONS);
    let is_final = is_cut || is_any_of(&FINAL_REASONS);
    let has_message = choice["message"].is_object() || (is_final && choice.is_object());
    // Some gateways report an error of the model behind them with a 200.
    if is_error(&completion["error"]) || !has_message || finish_reason.as_deref() == Some("error") {
        return Err(failing(format!("the model's response has no answer: {}", error_text(bytes))));
    }
    let mut text = reasoning::without_reasoning(&text_of(&choice["message"]["content"])?).into_owned();
    if text.trim().is_empty() {
        text = choice["message"]["refusal"].as_str().unwrap_or_default().to_owned();
    }
    if text.is_empty() && !is_final {
        let reason = finish_reason.as_deref().unwrap_or("none");
        return Err(failing(format!("the model returned an empty answer (finish_reason: {reason})")));
    }
    Ok(ChatAnswer {
        text,
        model: completion["model"].as_str().map(str::to_owned),
        finish_reason,
        is_cut,
        input_tokens: completion["usage"]["prompt_tokens"].as_i64(),
        output_tokens: completion["usage"]["completion_tokens"].as_i64(),
    })
}

/// Whether a reason is one of those known. Some gateways pass on the name of a constant (`FinishReason.MAX_TOKENS`).
fn is_one_of(reason: &str, known: &[&str]) -> bool {
    let reason = reason.to_ascii_lowercase();
    let name = ["finishreason.", "finish_reason_"].into_iter().find_map(|constant| reason.strip_prefix(constant));
    known.iter().any(|known| name.unwrap_or(&reason).starts_with(known))
}

/// Whether there is anything in the field of an error: some servers always send one.
fn is_error(error: &Value) -> bool {
    match error {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.trim().is_empty(),
        Value::Array(errors) => !errors.is_empty(),
        Value::Object(error) => !error.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    }
}

fn failing(message: String) -> ModelFault {
    ModelFault::Failing { retry_after: None, message }
}

/// The text of a content that is a string or a list of blocks. Text that citations split into blocks is joined again.
fn text_of(content: &Value) -> Result<String, ModelFault> {
    match content {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Array(blocks) => text_of_blocks(blocks),
        _ => Err(failing("the content of the model's answer is neither text nor a list of blocks".to_owned())),
    }
}

/// The text of all blocks. Reasoning is dropped; any other block without text only if there is text beside it.
fn text_of_blocks(blocks: &[Value]) -> Result<String, ModelFault> {
    let (mut text, mut unknown) = (String::new(), None);
    for block in blocks {
        let kind = block["type"].as_str();
        if kind.is_some_and(|kind| REASONING.contains(&kind)) {
            continue;
        }
        match block.as_str().or(block["text"].as_str()).or(block["refusal"].as_str()) {
            Some(piece) => text.push_str(piece),
            None => unknown = unknown.or(Some(kind.unwrap_or("unknown"))),
        }
    }
    match unknown {
        Some(kind) if text.trim().is_empty() => {
            let kind: String = kind.chars().take(40).collect();
            Err(failing(format!("the model's answer contains a block of type `{kind}`, which is not text")))
        }
        Some(kind) => {
            tracing::warn!(kind = %kind.chars().take(40).collect::<String>(), "a block of the model's answer is not text; it is left out");
            Ok(text)
        }
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn answer(body: &[u8]) -> Result<ChatAnswer, ModelFault> {
        super::answer(body, "application/json")
    }

    fn of_content(content: &Value) -> Result<ChatAnswer, ModelFault> {
        answer(json!({"choices": [{"message": {"content": content}, "finish_reason": "stop"}]}).to_string().as_bytes())
    }

    #[test]
    fn an_answer_that_is_none_is_a_fault() {
        let bodies = [
            "",
            "[]",
            "null",
            "\"text\"",
            "<html>",
            r#"{"choices":[]}"#,
            r#"{"choices":[null]}"#,
            r#"{"choices":[{"message":{"content":7}}]}"#,
            r#"{"choices":[{"message":{"content":"half of"},"finish_reason":"error"}]}"#,
            r#"{"error":{"message":"upstream is down"},"choices":[{"message":{"content":"x"}}]}"#,
        ];
        for body in bodies {
            assert!(matches!(answer(body.as_bytes()), Err(ModelFault::Failing { .. })), "{body}");
        }
    }

    #[test]
    fn an_error_within_a_200_is_told() {
        let Err(ModelFault::Failing { message, .. }) =
            answer(br#"{"error":{"message":"upstream is down","code":502}}"#)
        else {
            panic!("it was taken for an answer");
        };
        assert!(message.contains("upstream is down"), "{message}");
    }

    #[test]
    fn an_empty_answer_counts_only_when_its_finish_reason_says_why() {
        let of = |content: Value, reason: Value| {
            answer(
                json!({"choices": [{"message": {"content": content}, "finish_reason": reason}]}).to_string().as_bytes(),
            )
        };
        for content in [json!(null), json!(""), json!(" \n"), json!([]), json!([{"type": "reasoning", "text": "hm"}])] {
            for reason in ["length", "content_filter", "SAFETY", "content_filter: RECITATION", "MAX_TOKENS"] {
                let empty = of(content.clone(), json!(reason)).unwrap();
                assert_eq!((empty.text.as_str(), empty.finish_reason.as_deref()), ("", Some(reason)));
            }
            for reason in [json!("stop"), json!("tool_calls"), json!(null)] {
                assert!(matches!(of(content.clone(), reason), Err(ModelFault::Failing { .. })), "{content}");
            }
        }
    }

    #[test]
    fn an_answer_is_cut_by_whatever_name_its_limit_goes() {
        let is_cut = |reason: Value| {
            let body = json!({"choices": [{"message": {"content": "Half of"}, "finish_reason": reason}]});
            answer(body.to_string().as_bytes()).unwrap().is_cut
        };
        for reason in [
            "length",
            "LENGTH",
            "max_tokens",
            "MAX_TOKENS",
            "Max_Tokens",
            "FinishReason.MAX_TOKENS",
            "FINISH_REASON_MAX_TOKENS",
            "model_length",
            "max_output_tokens",
        ] {
            assert!(is_cut(json!(reason)), "{reason}");
        }
        for reason in [json!("stop"), json!("end_turn"), json!("content_filter"), json!(null), json!(""), json!(7)] {
            assert!(!is_cut(reason.clone()), "{reason}");
        }
    }

    #[test]
    fn of_blocks_the_reasoning_is_dropped_and_nothing_else() {
        let blocks = json!([
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "thinking", "thinking": "hm", "text": "hm"},
            {"type": "text", "text": "Hel"},
            "lo ",
            {"text": "you"},
            {"type": "output_text", "text": "."},
            {"type": "something_new", "text": " Bye."},
        ]);
        assert_eq!(of_content(&blocks).unwrap().text, "Hello you. Bye.");
        let beside_text = json!([{"type": "text", "text": "See."}, {"type": "image_url", "image_url": {"url": "x"}}]);
        assert_eq!(of_content(&beside_text).unwrap().text, "See.");
        let picture = json!([{"type": "image_url", "image_url": {"url": "x"}}]);
        let Err(ModelFault::Failing { message, .. }) = of_content(&picture) else { panic!("the picture was dropped") };
        assert!(message.contains("image_url"), "{message}");
    }

    #[test]
    fn an_error_that_is_empty_is_none_beside_an_answer() {
        for error in [json!(""), json!(null), json!({}), json!([]), json!(false)] {
            let body = json!({"error": error, "choices": [{"message": {"content": "Good"}, "finish_reason": "stop"}]});
            assert_eq!(answer(body.to_string().as_bytes()).unwrap().text, "Good");
        }
    }

    /// A body of events with these choices.
    fn stream(choices: &[Value]) -> String {
        choices.iter().map(|choice| format!("data: {}\n\n", json!({"choices": [choice]}))).collect()
    }

    #[test]
    fn a_stream_is_read_like_a_whole_answer() {
        let text = |value: &str| json!([{"type": "text", "text": value}]);
        let delta = |content: Value| json!({"delta": {"content": content}});
        let ending = json!({"delta": {}, "finish_reason": "stop"});
        let whole = json!({"message": {"role": "assistant", "content": "Hello!"}, "finish_reason": "stop"});
        let empty = json!({"message": {"content": "", "refusal": ""}, "finish_reason": "stop"});
        let both = |piece: &str, so_far: &str| json!({"delta": {"content": piece}, "message": {"content": so_far}});
        for (name, events) in [
            ("texts", vec![delta(json!("Hel")), delta(json!("lo!")), ending.clone()]),
            ("blocks", vec![delta(text("Hel")), delta(text("lo!")), ending.clone()]),
            ("mixed", vec![delta(text("Hel")), delta(json!("lo!")), delta(json!("")), ending.clone()]),
            ("reasoning", vec![delta(json!([{"type": "thinking", "text": "hm"}])), delta(text("Hello!")), ending]),
            ("a whole message", vec![whole.clone()]),
            ("an empty message", vec![delta(json!("Hello!")), empty]),
            ("a whole message at the end", vec![delta(json!("Hel")), delta(json!("lo!")), whole.clone()]),
            ("a message that grows", vec![both("Hel", "Hel"), both("lo!", "Hello!"), whole]),
        ] {
            let answered = answer(stream(&events).as_bytes());
            assert_eq!(answered.map(|answer| answer.text).as_deref(), Ok("Hello!"), "{name}");
        }
        let refusal = json!({"message": {"content": null, "refusal": "I cannot."}, "finish_reason": "stop"});
        assert_eq!(answer(stream(&[refusal]).as_bytes()).unwrap().text, "I cannot.");
    }

    #[test]
    fn a_stream_that_cannot_be_put_together_is_refused_with_the_reason() {
        let picture = json!({"delta": {"content": [{"type": "image_url"}]}, "finish_reason": "stop"});
        let piece = json!({"message": {"content": "Hel"}});
        let last = json!({"message": {"content": "lo!"}, "finish_reason": "stop"});
        for (events, expected) in [
            (vec![picture], "a block of type `image_url`"),
            (vec![json!({"delta": {"content": 7}, "finish_reason": "stop"})], "a block of type `unknown`"),
            (vec![piece, last], "before the last one of the stream has a message instead of a delta"),
            (vec![json!({"delta": {"content": "Hel"}})], "the event stream ends in the middle of the answer"),
        ] {
            let Err(ModelFault::Failing { message, .. }) = answer(stream(&events).as_bytes()) else {
                panic!("{events:?}")
            };
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn a_filtered_answer_without_a_message_is_an_answer_without_text() {
        let filtered = answer(br#"{"choices":[{"index":0,"finish_reason":"SAFETY"}]}"#).unwrap();
        assert_eq!((filtered.text.as_str(), filtered.finish_reason.as_deref()), ("", Some("SAFETY")));
    }

    #[test]
    fn what_cannot_be_read_is_quoted_with_its_type() {
        let page = b"<!DOCTYPE html><html><body>Sign in</body></html>";
        let Err(ModelFault::Failing { message, .. }) = super::answer(page, "text/html") else { panic!() };
        assert!(message.contains("(text/html)") && message.contains("<!DOCTYPE html>"), "{message}");
    }

    #[test]
    fn thoughts_in_the_text_are_left_out() {
        let answered = of_content(&json!("<think>\nhm\n</think>\n\nHello!")).unwrap();
        assert_eq!(answered.text, "Hello!");
        assert!(matches!(of_content(&json!("<think>hm")), Err(ModelFault::Failing { .. })));
    }

    #[test]
    fn a_refusal_is_the_answer() {
        let refused = answer(br#"{"choices":[{"message":{"content":null,"refusal":"I cannot."}}]}"#).unwrap();
        assert_eq!(refused.text, "I cannot.");
    }

    #[test]
    fn model_and_usage_are_taken_where_they_can_be_read() {
        let whole = answer(
            br#"{"model":"m","choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}],
            "usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}"#,
        );
        let expected = ChatAnswer {
            text: "Hi".to_owned(),
            model: Some("m".to_owned()),
            finish_reason: Some("stop".to_owned()),
            is_cut: false,
            input_tokens: Some(3),
            output_tokens: Some(1),
        };
        assert_eq!(whole.unwrap(), expected);
        let odd = answer(br#"{"model":7,"choices":[{"message":{"content":"Hi"}}],"usage":{"prompt_tokens":"many"}}"#);
        let odd = odd.unwrap();
        assert_eq!((odd.text.as_str(), odd.model, odd.input_tokens, odd.output_tokens), ("Hi", None, None, None));
    }

    proptest! {
        #[test]
        fn a_text_comes_through_as_it_is_whole_or_in_blocks(parts in prop::collection::vec("\\PC{1,20}", 1..5)) {
            let text = parts.concat();
            prop_assume!(!text.trim().is_empty());
            let blocks: Vec<Value> = parts.iter().map(|part| json!({"type": "text", "text": part})).collect();
            prop_assert_eq!(&of_content(&json!(blocks)).unwrap().text, &text);
            prop_assert_eq!(&of_content(&json!(text)).unwrap().text, &text);
        }

        #[test]
        fn no_body_makes_it_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _either = answer(&body);
        }
    }
}
