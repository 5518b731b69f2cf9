//! Every kind of update held to its columns, and every oddity of a line to a row.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

fn known(line: &str) -> UpdateColumns {
    match Update::parse(line.as_bytes()) {
        Update::Known(columns) => *columns,
        Update::Corrupt { text } => panic!("corrupt: {text}"),
    }
}

fn corrupt(line: &[u8]) -> String {
    match Update::parse(line) {
        Update::Corrupt { text } => text,
        Update::Known(columns) => panic!("known: {columns:?}"),
    }
}

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/updates")
}

fn fixture(kind: &str) -> UpdateColumns {
    known(&std::fs::read_to_string(fixtures().join(format!("{kind}.json"))).unwrap())
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn at(seconds: i64, columns: UpdateColumns) -> UpdateColumns {
    UpdateColumns { date: Some(seconds), sent_at: Some(Timestamp::from_micros(seconds * 1_000_000)), ..columns }
}

fn by_ada(columns: UpdateColumns) -> UpdateColumns {
    UpdateColumns {
        user_id: Some(5_123_456_789),
        username: some("ada_l"),
        first_name: some("Ada"),
        last_name: some("Lovelace"),
        language_code: some("en"),
        ..columns
    }
}

fn by_ben(columns: UpdateColumns) -> UpdateColumns {
    UpdateColumns { user_id: Some(6_987_654_321), first_name: some("Бен"), language_code: some("uk"), ..columns }
}

fn in_chat(id: i64, kind: &str, title: Option<&str>, columns: UpdateColumns) -> UpdateColumns {
    UpdateColumns { chat_id: Some(id), chat_type: some(kind), chat_title: title.map(str::to_owned), ..columns }
}

fn in_group(columns: UpdateColumns) -> UpdateColumns {
    in_chat(-1_001_987_654_321, "supergroup", Some("Analytical Engine ⚙️"), columns)
}

fn in_channel(columns: UpdateColumns) -> UpdateColumns {
    in_chat(-1_001_555_444_333, "channel", Some("Engine News"), columns)
}

fn with_ada(columns: UpdateColumns) -> UpdateColumns {
    in_chat(5_123_456_789, "private", None, columns)
}

fn with_ben(columns: UpdateColumns) -> UpdateColumns {
    in_chat(6_987_654_321, "private", None, columns)
}

fn message(id: i64) -> UpdateColumns {
    UpdateColumns { message_id: Some(id), ..UpdateColumns::default() }
}

/// What the columns of the fixtures are, but for `update_id` and `update_type`.
fn expected(kind: &str) -> UpdateColumns {
    if kind.ends_with("message") || kind.ends_with("post") { expected_message(kind) } else { expected_event(kind) }
}

fn expected_message(kind: &str) -> UpdateColumns {
    match kind {
        "message" => at(
            1_760_000_000,
            by_ada(in_group(UpdateColumns {
                message_thread_id: Some(17),
                reply_to_message_id: Some(4702),
                text: some("/ask@lakegram_bot Does it? 🤔"),
                ..message(4711)
            })),
        ),
        "edited_message" => at(
            1_760_000_060,
            by_ben(with_ben(UpdateColumns {
                text: some("Що на цьому фото?"),
                media_type: some("photo"),
                file_id: some("AgACAgIAAxkBAAISaGjoLarge"),
                ..message(4712)
            })),
        ),
        "channel_post" => at(
            1_760_000_120,
            in_channel(UpdateColumns {
                author_signature: some("Charles B."),
                text: some("The plans"),
                media_type: some("document"),
                file_id: some("BQACAgQAAyEFAASPlans"),
                ..message(88)
            }),
        ),
        "edited_channel_post" => at(
            1_760_000_000,
            in_channel(UpdateColumns {
                text: some("Engine No. 2 is announced, see https://example.org"),
                ..message(87)
            }),
        ),
        "business_message" => at(
            1_760_000_300,
            by_ben(with_ben(UpdateColumns {
                media_type: some("voice"),
                file_id: some("AwACAgIAAxkBVoice"),
                ..message(901)
            })),
        ),
        "edited_business_message" => {
            at(1_760_000_360, by_ben(with_ben(UpdateColumns { text: some("Are you open on Sunday?"), ..message(902) })))
        }
        "guest_message" => at(
            1_760_000_420,
            by_ada(in_chat(
                -4_011_223_344,
                "group",
                Some("Family"),
                UpdateColumns { text: some("@lakegram_bot what is a punched card?"), ..message(12) },
            )),
        ),
        other => panic!("say here what the columns of {other} are"),
    }
}

fn expected_event(kind: &str) -> UpdateColumns {
    let none = UpdateColumns::default();
    match kind {
        "business_connection" => at(1_760_000_240, by_ada(UpdateColumns { chat_id: Some(5_123_456_789), ..none })),
        "deleted_business_messages" => with_ben(none),
        "stopped_message_generation" => with_ada(UpdateColumns { message_thread_id: Some(3), ..none }),
        "message_reaction" => at(1_760_000_480, by_ben(in_group(message(4711)))),
        "message_reaction_count" => at(1_760_000_540, in_channel(message(88))),
        "callback_query" => by_ada(in_group(UpdateColumns {
            message_thread_id: Some(17),
            callback_query_id: some("22004455998877666"),
            callback_data: some("CONNECT"),
            ..message(4713)
        })),
        "inline_query" | "chosen_inline_result" | "shipping_query" | "pre_checkout_query" | "managed_bot" => {
            by_ada(none)
        }
        "purchased_paid_media" | "poll_answer" | "subscription" => by_ben(none),
        "poll" => none,
        "my_chat_member" => at(1_760_000_600, by_ada(with_ada(none))),
        "chat_member" => at(1_760_000_660, by_ada(in_group(none))),
        "chat_join_request" => at(1_760_000_720, by_ben(in_group(none))),
        "chat_boost" => at(1_760_000_780, by_ben(in_channel(none))),
        "removed_chat_boost" => at(1_760_000_840, by_ben(in_channel(none))),
        other => panic!("say here what the columns of {other} are"),
    }
}

#[test]
fn every_kind_has_a_fixture_and_every_fixture_a_kind() {
    let mut files: Vec<_> = std::fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    files.sort();
    let mut kinds = UPDATE_KINDS.to_vec();
    kinds.sort_unstable();
    assert_eq!(files, kinds);
    assert_eq!(kinds.len(), 27);
}

#[test]
fn every_kind_fills_its_columns() {
    for (index, kind) in UPDATE_KINDS.iter().enumerate() {
        let update_id = 853_201_001 + i64::try_from(index).unwrap();
        let expected = UpdateColumns { update_id, update_type: some(kind), ..expected(kind) };
        assert_eq!(fixture(kind), expected, "{kind}");
    }
}

#[test]
fn what_is_no_update_is_corrupt_with_its_text() {
    for line in [
        "",
        "hello",
        "[]",
        "null",
        "{",
        "{}",
        r#"{"update_id":1"#,
        r#"{"update_id":1} x"#,
        r#"{"update_id":"1"}"#,
        r#"{"update_id":1.0}"#,
        r#"{"update_id":1e3}"#,
        r#"{"update_id":null}"#,
        r#"{"update_id":9223372036854775808}"#,
        r#"{"_corrupt_record":5}"#,
        r#"{"_corrupt_record":"x","_encoding":"rot13"}"#,
    ] {
        assert_eq!(corrupt(line.as_bytes()), line);
    }
}

#[test]
fn what_our_receiver_wrapped_is_unwrapped() {
    assert_eq!(corrupt(br#"{"_corrupt_record": "not \"json\""}"#), "not \"json\"");
    assert_eq!(corrupt(br#"{"_corrupt_record": "/w==", "_encoding": "base64"}"#), "data:;base64,/w==");
}

#[test]
fn bytes_that_are_no_utf8_are_kept_in_base64() {
    assert_eq!(corrupt(b"\xff"), "data:;base64,/w==");
    assert_eq!(corrupt(b"{\"update_id\":1,\"message\":{\"text\":\"\xc3\"}}").get(..13), Some("data:;base64,"));
}

#[test]
fn a_kind_that_is_newer_than_this_program_is_named_and_read_where_it_is_as_usual() {
    let columns = known(r#"{"telepathy":{"chat":{"id":1},"user":{"id":2},"text":["x"]},"update_id":7,"more":{}}"#);
    let expected = UpdateColumns { chat_id: Some(1), user_id: Some(2), ..UpdateColumns::default() };
    assert_eq!(columns, UpdateColumns { update_id: 7, update_type: some("telepathy"), ..expected });
    assert_eq!(known(r#"{"update_id":7,"secret_message":{"text":"psst"}}"#).text, some("psst"));
    assert_eq!(known(r#"{"update_id":7,"telepathy":5}"#).rescued, some(r#"{"telepathy":5}"#));
    assert_eq!(known(r#"{"update_id":7}"#), UpdateColumns { update_id: 7, ..UpdateColumns::default() });
    let known_wins = known(r#"{"update_id":7,"extra":1,"poll":null,"message":{"message_id":2}}"#);
    assert_eq!((known_wins.update_type, known_wins.message_id), (some("message"), Some(2)));
}

#[test]
fn what_does_not_fit_its_column_is_rescued_verbatim() {
    let columns = known(
        r#"{"update_id":1,"message":{"message_id":1.5,"chat":{"id":"-100","type":["x"],"title":"T"},"from":"Ada",
        "date":"today","text":{"a": 1e999},"reply_to_message":[],"document":{"file_id":123456789012345678901234567890}}}"#,
    );
    assert_eq!(
        columns,
        UpdateColumns {
            update_id: 1,
            update_type: some("message"),
            chat_title: some("T"),
            media_type: some("document"),
            rescued: some(
                r#"{"chat_id":"-100","chat_type":["x"],"date":"today","file_id":123456789012345678901234567890,"message_id":1.5,"reply_to_message_id":[],"text":{"a": 1e999},"user_id":"Ada"}"#
            ),
            ..UpdateColumns::default()
        }
    );
    assert_eq!(known(r#"{"update_id":1,"message":5}"#).rescued, some(r#"{"message":5}"#));
    assert_eq!(known(r#"{"update_id":1,"callback_query":{"message":"m"}}"#).rescued.unwrap().len(), 32);
}

#[test]
fn a_text_with_an_unpaired_surrogate_is_rescued_and_the_rest_is_read() {
    let columns = known(r#"{"update_id":1,"message":{"message_id":2,"text":"\ud83d"}}"#);
    assert_eq!((columns.message_id, columns.text), (Some(2), None));
    assert_eq!(columns.rescued, some(r#"{"text":"\ud83d"}"#));
}

#[test]
fn a_date_beyond_every_calendar_keeps_its_number_and_has_no_timestamp() {
    let columns = known(r#"{"update_id":1,"message":{"date":9223372036854775807}}"#);
    assert_eq!((columns.date, columns.sent_at), (Some(i64::MAX), None));
    assert_eq!(columns.rescued, some(r#"{"sent_at":9223372036854775807}"#));
}

#[test]
fn null_and_absent_are_the_same_and_of_duplicates_the_last_counts() {
    let columns = known(r#"{"update_id":1,"update_id":2,"message":{"text":null,"caption":"c","from":null}}"#);
    assert_eq!((columns.update_id, columns.text, columns.rescued), (2, some("c"), None));
}

#[test]
fn a_button_below_an_inline_or_an_inaccessible_message_still_has_its_sender() {
    let inline =
        known(r#"{"update_id":1,"callback_query":{"id":"9","from":{"id":3},"inline_message_id":"x","data":"D"}}"#);
    assert_eq!((inline.user_id, inline.chat_id, inline.callback_data), (Some(3), None, some("D")));
    let gone = known(
        r#"{"update_id":1,"callback_query":{"id":"9","from":{"id":3},"message":{"chat":{"id":4},"message_id":5,"date":0}}}"#,
    );
    assert_eq!((gone.chat_id, gone.message_id, gone.date, gone.sent_at), (Some(4), Some(5), None, None));
}

#[test]
fn a_chat_that_speaks_in_its_own_name_is_no_user() {
    let columns =
        known(r#"{"update_id":1,"message_reaction":{"chat":{"id":-1},"actor_chat":{"id":-2},"message_id":3}}"#);
    assert_eq!((columns.chat_id, columns.user_id), (Some(-1), None));
}

#[test]
fn depth_is_no_danger() {
    let deep = format!("{{\"update_id\":1,\"message\":{{\"text\":{}{}}}}}", "[".repeat(200_000), "]".repeat(200_000));
    let columns = known(&deep);
    assert_eq!(columns.rescued.unwrap().len(), 400_000 + r#"{"text":}"#.len());
    assert_eq!(corrupt("[".repeat(200_000).as_bytes()).len(), 200_000);
}

#[test]
fn an_animation_is_not_called_a_document_and_media_without_a_file_have_none() {
    let both = known(r#"{"update_id":1,"message":{"document":{"file_id":"d"},"animation":{"file_id":"a"}}}"#);
    assert_eq!((both.media_type, both.file_id), (some("animation"), some("a")));
    let place = known(r#"{"update_id":1,"message":{"location":{"latitude":1.0,"longitude":2.0}}}"#);
    assert_eq!((place.media_type, place.file_id, place.rescued), (some("location"), None, None));
}

proptest! {
    #[test]
    fn any_bytes_give_an_answer(line in proptest::collection::vec(any::<u8>(), 0..200)) {
        Update::parse(&line);
    }

    #[test]
    fn any_value_in_any_place_is_a_column_or_rescued(kind in 0..UPDATE_KINDS.len(), value in "[\"\\[{0-9eE.a-z\\]}:-]{1,8}") {
        let line = format!("{{\"update_id\":1,\"{}\":{{\"chat\":{value},\"from\":{value},\"date\":{value},\"text\":{value}}}}}", UPDATE_KINDS[kind]);
        match Update::parse(line.as_bytes()) {
            Update::Known(columns) => {
                let rescued = columns.rescued.unwrap_or_else(|| "{}".to_owned());
                prop_assert!(Fields::parse(&rescued).is_some());
            }
            Update::Corrupt { text } => prop_assert_eq!(text, line),
        }
    }
}

#[test]
fn a_line_that_panics_is_a_corrupt_record_with_its_text() {
    let look = |line: &[u8]| -> Update { panic!("{} bytes", line.len()) };
    assert_eq!(super::contained(b"{}", look), Update::Corrupt { text: "{}".to_owned() });
    assert_eq!(super::contained(b"\xff", look), Update::Corrupt { text: "data:;base64,/w==".to_owned() });
}
