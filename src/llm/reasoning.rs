//! What a model thinks aloud before it answers, in the marks of the models that write it into their text.

use std::borrow::Cow;

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
const LEFT_BEFORE: [&str; 3] = ["<|start|>assistant", "<|channel|>final<|message|>", ANSWER.0];
/// What they leave behind it: the tokens by which models say that they are done.
const LEFT_BEHIND: [&str; 5] = ["<|return|>", "<|end|>", "<|im_end|>", "<|eot_id|>", "<|endoftext|>"];
/// What some models put around the answer itself.
const ANSWER: (&str, &str) = ("<answer>", "</answer>");
/// Where the answer begins if the template opened the reasoning before.
const FINAL: &str = "<|end|><|start|>assistant<|channel|>final<|message|>";

/// An answer without the reasoning that it begins with, and without the marks around itself. Marks further on belong to
/// the answer: it may be about them.
pub(super) fn without_reasoning(text: &str) -> Cow<'_, str> {
    let text = without_end(text);
    let mut rest = behind_marks(text);
    if rest.len() == text.len() {
        // Some templates open it before the model writes.
        let unopened = MARKS.iter().find_map(|(open, close)| unopened(text, open, close));
        rest = behind_marks(unopened.or_else(|| behind_final(text)).unwrap_or(text));
    }
    let before = &text[..text.len() - rest.len()];
    without_close(if before.is_empty() { text } else { rest.trim_start() }, begins_answer(before))
}

/// What is left of the text before the tokens at its end.
fn without_end(text: &str) -> &str {
    let mut rest = text;
    while let Some(mark) = LEFT_BEHIND.iter().find(|mark| ends_with(rest.trim_end(), mark)) {
        rest = rest.trim_end();
        rest = rest[..rest.len() - mark.len()].trim_end();
    }
    rest
}

/// What is left of the text behind the marks that it begins with, and the reasoning between them.
fn behind_marks(text: &str) -> &str {
    let mut rest = text;
    loop {
        let start = rest.trim_start();
        if let Some((open, close)) = MARKS.iter().find(|(open, _)| begins_with(start, open)) {
            // Cut off while it was still thinking, there is no answer.
            rest = find(&start[open.len()..], close).map_or("", |end| &start[open.len() + end + close.len()..]);
        } else if let Some(mark) = LEFT_BEFORE.iter().find(|mark| begins_with(start, mark)) {
            rest = &start[mark.len()..];
        } else {
            return rest;
        }
    }
}

/// The text behind a mark on a line of its own that closes what was never opened.
fn unopened<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let at = find(text, close)?;
    let (before, after) = (&text[..at], &text[at + close.len()..]);
    let line = before.rsplit('\n').next().unwrap_or_default();
    let is_alone = line.trim().is_empty() && after.lines().next().unwrap_or_default().trim().is_empty();
    (is_alone && find(before, open).is_none() && !before.contains("```")).then_some(after)
}

/// The text behind the marks that begin an answer, if what they follow is not about them.
fn behind_final(text: &str) -> Option<&str> {
    let at = find(text, FINAL)?;
    (!text[..at].contains('`')).then_some(&text[at + FINAL.len()..])
}

/// Whether marks before an answer end by opening it.
fn begins_answer(marks: &str) -> bool {
    ends_with(marks.trim_end(), ANSWER.0)
}

/// The answer without the mark that closes it: the last one if the answer was opened, otherwise one at its end of which
/// it has no counterpart.
fn without_close(answer: &str, is_opened: bool) -> Cow<'_, str> {
    let (open, close) = ANSWER;
    let Some(at) = positions(answer, close).last().filter(|_| find(answer, open).is_none()) else {
        return Cow::Borrowed(answer);
    };
    let (inside, behind) = (without_end(&answer[..at]).trim_end(), &answer[at + close.len()..]);
    match (behind.trim().is_empty(), is_opened) {
        (true, _) => Cow::Borrowed(inside),
        (false, true) => Cow::Owned(format!("{inside}{behind}")),
        (false, false) => Cow::Borrowed(answer),
    }
}

fn begins_with(text: &str, mark: &str) -> bool {
    text.get(..mark.len()).is_some_and(|start| start.eq_ignore_ascii_case(mark))
}

fn ends_with(text: &str, mark: &str) -> bool {
    text.len().checked_sub(mark.len()).and_then(|at| text.get(at..)).is_some_and(|end| begins_with(end, mark))
}

fn find(text: &str, mark: &str) -> Option<usize> {
    positions(text, mark).next()
}

fn positions(text: &str, mark: &str) -> impl Iterator<Item = usize> {
    text.char_indices().map(|(at, _)| at).filter(move |at| begins_with(&text[*at..], mark))
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
            "Okay, the user says hi.\n</think>\n\n<answer>Hello!</answer>",
            "Okay, the user says hi.<|end|><|start|>assistant<|channel|>final<|message|>Hello!<|return|>",
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>analysis<|message|>b<|end|>Hello!",
            "<think>hm</think>\n<answer>\nHello!\n</answer>\n",
            "<think>hm, an <answer></think>Hello!</answer>",
            "<answer><think>hm</think>Hello!</answer><|im_end|>",
        ] {
            assert_eq!(without_reasoning(text), "Hello!", "{text}");
        }
        assert_eq!(without_reasoning("<think>\nand then it was cut"), "");
    }

    #[test]
    fn marks_around_the_answer_are_left_out_though_there_is_no_reasoning() {
        for text in [
            "<|channel|>final<|message|>Hello!",
            "<|start|>assistant<|channel|>final<|message|>Hello!<|return|>",
            "Hello!<|end|>",
            "Hello!\n<|END|>\n <|endoftext|>\n",
            "<answer>Hello!</answer>",
            "<Answer>\nHello!\n</Answer>\n",
            "<answer>Hello!",
            "Hello!</answer>",
        ] {
            assert_eq!(without_reasoning(text), "Hello!", "{text}");
        }
        let twice = "<think>hm</think><answer>Hello!</answer>\n\nBye!";
        assert_eq!(without_reasoning(twice), "Hello!\n\nBye!");
        assert_eq!(without_reasoning("<|channel|>final<|message|><|return|>"), "");
    }

    #[test]
    fn an_answer_about_the_marks_is_kept() {
        for text in [
            "Models write `<think>` first.",
            "Use <think>x</think> like this.",
            "It ends with </think> in the text.",
            "```\n<think>\nhm\n</think>\n```",
            "Write <answer>Hello!</answer>",
            "Close it with </answer> at the end.",
            "The token `<|return|>` ends `<|channel|>final<|message|>`",
            "`hm<|end|><|start|>assistant<|channel|>final<|message|>Hello!<|return|>`",
            "<|end|> is where it ends.",
            "",
        ] {
            assert_eq!(without_reasoning(text), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_kept_is_the_end_of_the_text(text in "(<think>|</think>|[a-z \n]|😀){0,30}") {
            prop_assert!(text.ends_with(&*without_reasoning(&text)));
        }

        #[test]
        fn no_mark_is_at_the_end(text in "(<\\|(return|end)\\|>|</?answer>|[a-z \n]|😀){0,30}", mark in 0..5_usize) {
            let ended = format!("{text}{}", LEFT_BEHIND[mark]);
            let left = without_reasoning(&ended);
            prop_assert!(LEFT_BEHIND.iter().all(|mark| !left.trim_end().ends_with(mark)), "{left}");
        }
    }
}
