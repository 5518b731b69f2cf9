//! What the stand-in answers: that it is a stand-in, what it was asked, and how much of the chat was sent along.

use serde_json::{Value, json};

use crate::llm::{ChatMessage, Role};

/// The stand-in's name in its answers.
pub(super) const MODEL_NAME: &str = "lakegram-stand-in";
/// How much of a question is repeated, in characters.
const ECHO_LIMIT: usize = 1_000;

/// The text of an answer.
pub(super) fn stand_in_text(messages: &[ChatMessage]) -> String {
    let question = messages.last().map(|message| message.content.trim()).unwrap_or_default();
    let mut echo: String = question.chars().take(ECHO_LIMIT).collect();
    if echo.len() < question.len() {
        echo.push('…');
    }
    let context = match messages.iter().filter(|message| message.role == Role::Assistant).count() {
        0 => "This is our first turn.".to_owned(),
        1 => "One earlier turn of this chat came along.".to_owned(),
        turns => format!("{turns} earlier turns of this chat came along."),
    };
    format!(
        "I am a **stand-in**, not a model. You wrote:\n\n> {}\n\n{context} Set `LLM_BASE_URL` and I make room for a real one.",
        echo.replace('\n', "\n> ")
    )
}

/// The body of an answer with its usage, counting a word as a token; truncated at `max_tokens`.
pub(super) fn completion(messages: &[ChatMessage], text: &str, max_tokens: Option<u64>, in_blocks: bool) -> Value {
    let limit = max_tokens.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    let said = words(text);
    let (text, finish_reason) = if said > limit {
        (text.split_whitespace().take(limit).collect::<Vec<_>>().join(" "), "length")
    } else {
        (text.to_owned(), "stop")
    };
    let asked: usize = messages.iter().map(|message| words(&message.content)).sum();
    let said = said.min(limit);
    let content = if in_blocks {
        let thought = json!({"type": "summary_text", "text": "A stand-in does not reason."});
        json!([{"type": "reasoning", "summary": [thought]}, {"type": "text", "text": text}])
    } else {
        json!(text)
    };
    json!({
        "id": "chatcmpl-stand-in",
        "object": "chat.completion",
        "model": MODEL_NAME,
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": content},
            "finish_reason": finish_reason,
        }],
        "usage": {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said},
    })
}

fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(role: Role, content: &str) -> ChatMessage {
        ChatMessage { role, content: content.to_owned() }
    }

    #[test]
    fn the_text_repeats_the_question_and_counts_the_turns() {
        let mut chat = vec![said(Role::System, "Be kind."), said(Role::User, "one\ntwo")];
        let first = stand_in_text(&chat);
        assert!(first.contains("> one\n> two\n") && first.contains("first turn"), "{first}");
        for _ in 0..2 {
            chat.extend([said(Role::Assistant, "answer"), said(Role::User, &"x".repeat(5_000))]);
        }
        let third = stand_in_text(&chat);
        assert!(third.contains("2 earlier turns") && third.contains("x…") && third.len() < 1_500, "{third}");
    }

    #[test]
    fn an_answer_is_cut_off_at_the_most_tokens() {
        let body = completion(&[said(Role::User, "a b c")], "one two three", Some(2), false);
        assert_eq!(body["choices"][0]["message"]["content"], "one two");
        assert_eq!(body["choices"][0]["finish_reason"], "length");
        assert_eq!(body["usage"], json!({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}));
    }
}
