//! No spelling and no piece of a secret is left, whatever is around it, and nothing else is touched.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use proptest::prelude::*;

use super::*;

const TOKEN: &str = "7654321098:AAEcanary-of_a_bot/token+with&odd%20\"signs";

fn knowing(secrets: &[&str]) -> Redactor {
    let mut redactor = Redactor::default();
    secrets.iter().for_each(|secret| redactor.know(secret));
    redactor
}

/// The text in the form of a URL, of HTML, and of JSON.
fn escaped(text: &str) -> Vec<String> {
    let all = |form: &dyn Fn(u8) -> String| text.bytes().map(form).collect::<String>();
    let percent = all(&|byte| format!("%{byte:02X}"));
    let json = all(&|byte| format!("\\u{byte:04x}"));
    vec![
        text.to_owned(),
        percent.to_lowercase(),
        percent.replace('%', "%25"),
        all(&|byte| format!("&#{byte};")),
        all(&|byte| format!("&#x{byte:X};")),
        json.replace('\\', "\\\\"),
        json,
        serde_json::to_string(text).unwrap(),
        format!("{text:?}"),
    ]
}

#[test]
fn every_spelling_is_hidden() {
    let redactor = knowing(&[TOKEN]);
    let partly = [
        TOKEN.replace(':', "%3a").replace('/', "%2F"),
        TOKEN.replace('&', "&amp;").replace(':', "&colon;").replace('"', "&quot;"),
    ];
    for spelling in escaped(TOKEN).into_iter().chain(partly) {
        let shown = redactor.redact(&format!("POST /bot{spelling}/getMe")).into_owned();
        let rest = shown.strip_prefix("POST /bot").unwrap();
        assert!(rest.ends_with("/getMe") && rest.contains("***"), "{spelling}: {shown}");
        assert!(!shown.contains("canary") && shown.len() < 90, "{spelling}: {shown}");
    }
}

#[test]
fn base64_is_hidden_wherever_it_begins() {
    let redactor = knowing(&["a canary that is a password?>"]);
    for user in ["", "a", "ab", "abc", "somebody:"] {
        let text = format!("{user}a canary that is a password?>");
        for shown in [STANDARD.encode(&text), URL_SAFE.encode(&text)] {
            let shown = redactor.redact(&format!("authorization: Basic {shown}")).into_owned();
            assert!(shown.rsplit_once("***").unwrap().1.len() <= 3 && shown.len() < 45, "{user}: {shown}");
        }
    }
}

#[test]
fn a_beginning_of_eight_characters_and_any_piece_of_twelve_is_hidden() {
    let redactor = knowing(&["sk-0a1b2c3d4e5f6g7h8i9j"]);
    for length in 8..23 {
        assert_eq!(redactor.redact(&format!("key {}...", &"sk-0a1b2c3d4e5f6g7h8i9j"[..length])), "key ***...");
    }
    assert_eq!(redactor.redact("key sk-0a1b, sk-0"), "key sk-0a1b, sk-0");
    assert_eq!(redactor.redact("…3d4e5f6g7h8i9j"), "…***");
    assert_eq!(redactor.redact("ü sk-0a1b2c3dü sk-0a1b2cü"), "ü ***ü ***ü");
}

#[test]
fn the_number_of_a_bot_is_no_secret() {
    let redactor = knowing(&["7654321098:AAEcanary-of-a-token"]);
    for text in
        ["raw/telegram/7654321098/lane", "bot 7654321098: polling", "7654321098", "{\"bot_id\":7654321098,\"A\""]
    {
        assert_eq!(redactor.redact(text), text);
    }
    assert!(!redactor.redact("https://host/bot7654321098:AAEca").contains("AAE"));
    assert_eq!(redactor.redact("the rest is AAEcanary-of-a"), "the rest is ***");
}

#[test]
fn what_is_short_is_hidden_as_a_whole_and_what_is_shorter_never() {
    let redactor = knowing(&["hunter2", "abc"]);
    assert_eq!(redactor.redact("hunter hunter2 hunter%32 abc"), "hunter *** *** abc");
    assert!(matches!(Redactor::default().redact("anything"), Cow::Borrowed(_)));
}

#[test]
fn an_excerpt_is_redacted_before_it_is_cut_and_says_what_is_left_out() {
    know("excerpt-canary-0123456789");
    for before in 0..40 {
        let text = format!("{}excerpt-canary-0123456789 and more of it", "x".repeat(before));
        assert!(!beginning(&text, 30).contains("excerpt-c"), "{before}");
        let cut = excerpt(&text, 60);
        assert!(cut.chars().count() <= 60 && !cut.contains("excerpt-c"), "{cut}");
    }
    let long = excerpt(&"ä".repeat(5_000_000), CELL_LIMIT);
    assert!(long.chars().count() <= CELL_LIMIT && long.ends_with("ä… (4998040 more characters)"), "{}", &long[3_900..]);
    assert_eq!(excerpt(&long, CELL_LIMIT), long);
    assert_eq!(excerpt("short", CELL_LIMIT), "short");
}

#[test]
fn however_many_secrets_are_issued_the_latest_and_those_kept_are_known() {
    let mut redactor = knowing(&["kept-for-good-1"]);
    for number in 0..10_000 {
        redactor.know_for_now(&format!("issued-token-{number:020}"));
    }
    assert!(redactor.latest.iter().map(String::len).sum::<usize>() <= REMEMBERED_BYTES);
    assert_eq!(redactor.redact("kept-for-good-1, issued-token-00000000000000009999"), "***, ***");
    let in_use = redactor.latest[0].clone();
    redactor.know_for_now(&in_use);
    assert_eq!(redactor.latest.back(), Some(&in_use), "one that is known again is forgotten last");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Whatever a secret is made of, however it is escaped and wherever it is cut, no beginning of eight characters is
    /// left.
    #[test]
    fn no_beginning_is_left(
        secret in "[!-$'-~]{12,40}", before in "[A-Z ]{0,20}", cut in 8_usize..40, form in 0_usize..9
    ) {
        let redactor = knowing(&[&secret]);
        let piece = &secret[..cut.min(secret.len())];
        let shown = redactor.redact(&format!("{before}|{}|{before}", escaped(piece)[form])).into_owned();
        let head = index_of_head(&secret);
        prop_assert!(!shown.contains(&secret[head..head + 8]), "{shown}");
        prop_assert!(shown.contains(HIDDEN) || piece.len() < head + 8, "{shown}");
    }

    #[test]
    fn text_without_a_secret_stays_as_it_is(text in "\\PC{0,200}", escapes in "[%&;\\\\#xu0-9a-f]{0,60}") {
        let redactor = knowing(&["Zq8!canary~that-no-text-has"]);
        for text in [text, escapes] {
            prop_assert_eq!(redactor.redact(&text), text.as_str());
        }
    }
}

/// Where the hidden part of a secret begins: it may look like a token.
fn index_of_head(secret: &str) -> usize {
    let digits = secret.bytes().take_while(u8::is_ascii_digit).count();
    if digits > 0 && secret[digits..].starts_with(':') { (digits + 1).saturating_sub(7) } else { 0 }
}
