//! What a model thinks aloud before it answers, in the marks of the models that write it into their text.

/// What opens and closes it.
const MARKS: [(&str, &str); 8] = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<reflection>", "</reflection>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|channel|>analysis<|message|>", "<|end|>"),
];
/// What some servers leave before the answer itself.
const LEFT_OVER: [&str; 3] = ["<|start|>assistant", "<|channel|>final<|message|>", "<answer>"];

/// An answer without the reasoning that it begins with. Marks further on belong to the answer: it may be about them.
pub(super) fn without_reasoning(text: &str) -> &str {
    let mut rest = text;
    loop {
        let start = rest.trim_start();
        let Some((open, close)) = MARKS.iter().find(|(open, _)| begins_with(start, open)) else { break };
        // Cut off while it was still thinking, there is no answer.
        rest = find(&start[open.len()..], close).map_or("", |end| &start[open.len() + end + close.len()..]);
    }
    if rest.len() == text.len() {
        // Some templates open it before the model writes.
        rest = MARKS.iter().find_map(|(open, close)| unopened(text, open, close)).unwrap_or(text);
    }
    if rest.len() == text.len() {
        return text;
    }
    let mut rest = rest.trim_start();
    while let Some(mark) = LEFT_OVER.iter().find(|mark| rest.starts_with(**mark)) {
        rest = rest[mark.len()..].trim_start();
    }
    rest
}

/// The text behind a mark on a line of its own that closes what was never opened.
fn unopened<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let at = find(text, close)?;
    let (before, after) = (&text[..at], &text[at + close.len()..]);
    let line = before.rsplit('\n').next().unwrap_or_default();
    let is_alone = line.trim().is_empty() && after.lines().next().unwrap_or_default().trim().is_empty();
    (is_alone && find(before, open).is_none() && !before.contains("```")).then_some(after)
}

fn begins_with(text: &str, mark: &str) -> bool {
    text.get(..mark.len()).is_some_and(|start| start.eq_ignore_ascii_case(mark))
}

fn find(text: &str, mark: &str) -> Option<usize> {
    text.char_indices().map(|(at, _)| at).find(|at| begins_with(&text[*at..], mark))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reasoning_before_the_answer_is_left_out() {
        for text in [
            "<think>\nhm *secret*\n</think>\n\nHello!",
            "  <THINK>hm</THINK>Hello!",
            "<thinking>a</thinking><reflection>b</reflection>\nHello!",
            "[THINK]hm[/THINK]Hello!",
            "◁think▷hm◁/think▷Hello!",
            "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Hello!",
            "Okay, the user says hi.\n</think>\n\nHello!",
        ] {
            assert_eq!(without_reasoning(text), "Hello!", "{text}");
        }
        assert_eq!(without_reasoning("<think>\nand then it was cut"), "");
    }

    #[test]
    fn an_answer_about_the_marks_is_kept() {
        for text in [
            "Models write `<think>` first.",
            "Use <think>x</think> like this.",
            "It ends with </think> in the text.",
            "```\n<think>\nhm\n</think>\n```",
            "",
        ] {
            assert_eq!(without_reasoning(text), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_kept_is_the_end_of_the_text(text in "(<think>|</think>|[a-z \n]|😀){0,30}") {
            prop_assert!(text.ends_with(without_reasoning(&text)));
        }
    }
}
