//! The laws of rendering and splitting: nothing is lost, everything fits, every entity lies within its message.

use proptest::prelude::*;

use super::render::render as whole;
use super::split::{is_trimmed, split, utf16_length};
use super::*;

/// What an entity covers.
fn covered(part: &Part, entity: &Entity) -> String {
    let units: Vec<u16> = part.text.encode_utf16().collect();
    String::from_utf16(&units[entity.offset..entity.offset + entity.length]).unwrap()
}

/// The text of `markdown`, and kind and text of every entity.
fn shown(markdown: &str) -> (String, Vec<(String, String)>) {
    let part = whole(markdown);
    let entities = part.entities.iter().map(|entity| (entity.kind.clone(), covered(&part, entity))).collect();
    (part.text, entities)
}

fn pair(kind: &str, text: &str) -> (String, String) {
    (kind.to_owned(), text.to_owned())
}

fn unformatted(text: &str) -> Part {
    Part { text: text.to_owned(), entities: Vec::new() }
}

fn texts(text: &str, limit: usize) -> Vec<String> {
    split(&unformatted(text), limit).into_iter().map(|part| part.text).collect()
}

#[test]
fn inline_formatting_becomes_entities() {
    let (text, entities) = shown("A 👍 **bold**, *soft*, ~~gone~~, `code` and [a link](https://x.org).");
    assert_eq!(text, "A 👍 bold, soft, gone, code and a link.");
    let expected = [
        pair("bold", "bold"),
        pair("italic", "soft"),
        pair("strikethrough", "gone"),
        pair("code", "code"),
        pair("text_link", "a link"),
    ];
    assert_eq!(entities, expected);
}

#[test]
fn blocks_are_set_apart() {
    let (text, entities) = shown("# Title\nOne.\n\n- a\n- b\n  1. c\n\n```rust\nlet x = 1;\n```\n> quoted");
    assert_eq!(text, "Title\n\nOne.\n\n• a\n• b\n  1. c\n\nlet x = 1;\n\nquoted");
    assert_eq!(entities, [pair("bold", "Title"), pair("pre", "let x = 1;"), pair("blockquote", "quoted")]);
    assert_eq!(whole("```rust,ignore\nx\n```").entities[0].language.as_deref(), Some("rust"));
    assert_eq!(whole("```\nx\n```").entities[0].language, None);
}

#[test]
fn what_an_item_starts_with_stands_beside_its_marker() {
    assert_eq!(shown("- # A\n- > b\n- ```\n  c\n  ```\n-\n- d\n\n  e").0, "• A\n\n• b\n\n• c\n\n• \n• d\ne");
    assert_eq!(shown("3. three\n4. four\n\n   - deep\n\nafter").0, "3. three\n4. four\n  • deep\n\nafter");
}

#[test]
fn html_is_text() {
    assert_eq!(
        shown("<b>x</b> & y\n\n<div>\nz\n</div>\n\nafter"),
        ("<b>x</b> & y\n\n<div>\nz\n</div>\n\nafter".into(), vec![])
    );
}

#[test]
fn an_address_is_not_lost() {
    assert_eq!(shown("[here](#top)"), ("here".to_owned(), vec![]));
    assert_eq!(shown("[read](docs/a.md)"), ("read (docs/a.md)".to_owned(), vec![]));
    assert_eq!(shown("[write](mailto:a@b.c), <a@b.c>"), ("write (a@b.c), a@b.c".to_owned(), vec![]));
    let bare = pair("text_link", "https://x.org/i.png");
    assert_eq!(shown("![](https://x.org/i.png)"), ("https://x.org/i.png".to_owned(), vec![bare]));
    assert_eq!(shown("![cat](https://x.org/i.png)").1, [pair("text_link", "cat")]);
    assert_eq!(shown("[![cat](https://x.org/i.png)](https://x.org)").1, [pair("text_link", "cat")]);
    assert_eq!(shown("[x](javascript:alert)").1, []);
    assert_eq!(shown("![a [b](https://y.org)](#c)").1, [pair("text_link", "b")]);
    assert_eq!(shown("![a [b](https://y.org)](https://z.org)").0, "a b (https://y.org)");
}

#[test]
fn code_is_part_of_no_other_formatting() {
    assert_eq!(
        shown("## Use `foo` *now*").1,
        [pair("bold", "Use "), pair("code", "foo"), pair("bold", " now"), pair("italic", "now")]
    );
    assert_eq!(shown("**`all`**").1, [pair("code", "all")]);
    assert_eq!(shown("[`foo`](https://x.org)").1, [pair("text_link", "foo")]);
}

#[test]
fn formatting_within_its_own_kind_is_one() {
    assert_eq!(shown("> a\n> > b").1, [pair("blockquote", "a\n\nb")]);
    assert_eq!(shown("# a **b** c").1, [pair("bold", "a b c")]);
}

#[test]
fn a_table_is_monospaced_in_columns() {
    let (text, entities) = shown("T:\n\n| name | n |\n| - | - |\n| **Ada** | 1 |\n| [B](https://x.org) | |\n\nafter");
    let table = "name              | n\n------------------|--\nAda               | 1\nB (https://x.org) |";
    assert_eq!(text, format!("T:\n\n{table}\n\nafter"));
    assert_eq!(entities, [pair("pre", table)]);
}

#[test]
fn what_is_shown_is_not_much_longer_than_what_was_written() {
    let wide = format!("| a | b |\n| - | - |\n| {} | c |\n{}", "x".repeat(5_000), "| a | b |\n".repeat(1_000));
    let deep = "- ".repeat(5_000);
    for markdown in [wide, deep] {
        assert!(whole(&markdown).text.len() < 10 * markdown.len());
    }
}

#[test]
fn white_space_is_no_message() {
    for markdown in ["", " \n\u{200b} ", "\u{feff}", "```\n\n```", "&nbsp;"] {
        assert_eq!(render(markdown), [], "{markdown:?}");
    }
}

#[test]
fn a_paragraph_is_a_better_break_than_a_line_and_a_line_than_a_word() {
    assert_eq!(texts("aaaaaa\n\nb c d e", 10), ["aaaaaa", "b c d e"]);
    assert_eq!(texts("aaaaaa\nb c d e", 10), ["aaaaaa", "b c d e"]);
    assert_eq!(texts("aaaaaaa bbbbb", 10), ["aaaaaaa", "bbbbb"]);
    assert_eq!(texts("aaaaaaa\u{3000}bbbbb", 10), ["aaaaaaa", "bbbbb"]);
    assert_eq!(texts("aaaaaaaaaaaaaaa", 10), ["aaaaaaaaaa", "aaaaa"]);
}

#[test]
fn a_text_of_exactly_the_limit_is_one_message() {
    assert_eq!(render(&"a".repeat(4_096)).len(), 1);
    assert_eq!(render(&"a".repeat(4_097)).len(), 2);
    assert_eq!(render(&"👍".repeat(2_048)).len(), 1);
    assert_eq!(render(&"👍".repeat(2_049)).len(), 2);
}

#[test]
fn a_code_block_stays_one_in_every_part_with_its_indentation() {
    let parts = split(&whole(&format!("```python\n{}```", "if x:\n    y = 1\n".repeat(100))), 203);
    assert!(parts.len() > 4);
    assert!(parts.iter().any(|part| part.text.starts_with("    y")), "{parts:?}");
    for part in &parts {
        let [entity] = part.entities.as_slice() else { panic!("{part:?}") };
        assert_eq!((entity.kind.as_str(), entity.language.as_deref()), ("pre", Some("python")));
        assert_eq!(entity.range(), (0, utf16_length(&part.text)));
    }
}

#[test]
fn what_is_shown_as_one_character_is_not_parted() {
    for (whole, limit) in [("👩‍👩‍👧‍👦", 25), ("👍🏽", 9), ("🇩🇪", 10), ("🇩🇪", 7), ("e\u{301}", 5), ("1\u{fe0f}\u{20e3}", 7)]
    {
        for part in texts(&whole.repeat(10), limit) {
            assert!(part.replace(whole, "").is_empty(), "{part} of {whole} at {limit}");
        }
    }
}

#[test]
fn links_and_code_are_kept_of_too_much_formatting() {
    let parts = render(&format!("{} [link](https://x.org) `code`", "**b** c ".repeat(150)));
    assert_eq!(parts.len(), 1);
    let kinds: Vec<&str> = parts[0].entities.iter().map(|entity| entity.kind.as_str()).collect();
    assert_eq!(kinds.len(), 100);
    assert_eq!(kinds[97..], ["bold", "text_link", "code"]);
}

#[test]
fn a_long_text_of_much_formatting_is_done_in_time() {
    let markdown = "> **a `b` *c*** [d](https://x.org) ".repeat(5_000);
    assert!(render(&markdown).len() > 10);
    for unit in [
        "> ",
        "._",
        "**",
        "$",
        "\\[",
        "[",
        "[a]: b\n",
        "| ",
        "`",
        "https://",
        "<br",
        "\\begin{",
        "a-",
        "https://a,",
        "._",
        "C:\\a ",
    ] {
        let markdown = format!("https://x.org/{}", unit.repeat(50_000));
        assert!(!render(&markdown).is_empty());
    }
}

/// The text of an answer with the addresses of its links, as a reader can get at it.
fn readable(markdown: &str) -> String {
    let mut text = String::new();
    for part in render(markdown) {
        text.push_str(&part.text);
        text.push('\n');
        for url in part.entities.iter().filter_map(|entity| entity.url.as_deref()) {
            text.push_str(url);
            text.push('\n');
        }
    }
    text
}

/// Answers of models that readers of other bots have complained about.
#[test]
fn what_must_be_visible_of_an_answer_is() {
    let answers: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/fixtures/answers.json")).unwrap();
    let mut missing = Vec::new();
    for case in answers.as_array().unwrap() {
        let readable = readable(case["answer"].as_str().unwrap());
        let expected = case["must_be_visible"].as_array().unwrap().iter().map(|text| text.as_str().unwrap());
        missing
            .extend(expected.filter(|text| !readable.contains(text)).map(|text| format!("{}: {text}", case["name"])));
    }
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn a_target_that_telegram_refuses_is_written_out() {
    for (markdown, expected) in [
        ("[the dashboard](http://localhost:3000)", "the dashboard (http://localhost:3000)"),
        ("[api](http://{host}/v1)", "api (http://{host}/v1)"),
        ("[log](file:///var/log/x)", "log (file:///var/log/x)"),
        ("[odd](https://example.org:99999/x)", "odd (https://example.org:99999/x)"),
        ("[main.py](/srv/app/main.py#L12)", "main.py (/srv/app/main.py#L12)"),
        ("http://localhost:3000/_x_", "http://localhost:3000/_x_"),
    ] {
        assert_eq!(shown(markdown), (expected.to_owned(), vec![]), "{markdown}");
    }
    for url in ["http://10.0.0.1:8080/x", "https://müller.example/ü", "tg://user?id=1", "HTTPS://E.org"] {
        assert_eq!(shown(&format!("[x]({url})")).1, [pair("text_link", "x")], "{url}");
    }
}

#[test]
fn plain_text_says_where_its_links_lead() {
    let plain_of = |markdown| {
        let part = whole(markdown);
        plain(&part.text, &part.entities)
    };
    assert_eq!(
        plain_of("👍 **see** [x](https://e.org/y) and [z](https://e.org/z)"),
        "👍 see x (https://e.org/y) and z (https://e.org/z)"
    );
    assert_eq!(plain_of("![](https://e.org/y)"), "https://e.org/y");
    let long = format!("[x](https://e.org/y) {}", "a".repeat(MESSAGE_LIMIT_UTF16 - 10));
    assert_eq!(plain_of(&long), whole(&long).text, "it must still fit");
}

#[test]
fn a_line_that_looks_like_a_definition_is_text() {
    for markdown in ["[Ann]: Hello!\n[Bob]: Hi.", "[Ann]: Hello!\n[Ann]: Bye!", "a\n\n[x]: docs/a.md\n\nb [x]"] {
        assert_eq!(shown(markdown), (markdown.to_owned(), vec![]));
    }
    let (text, entities) = shown(
        "See [1][2], [docs][d] and [3].\n\n[1]: https://e.org/a\n[2]: https://e.org/b\n[d]: https://e.org/d \"D\"",
    );
    assert_eq!(text, "See [1][2], docs (D) and [3].");
    assert_eq!(entities, [pair("text_link", "[1]"), pair("text_link", "[2]"), pair("text_link", "docs")]);
    assert_eq!(shown("> [Ann]: Hello!\n\n- [Bob]: Hi.").0, "[Ann]: Hello!\n\n• [Bob]: Hi.");
}

#[test]
fn signs_that_are_no_markup_stay() {
    for text in [
        "__init__.py and __name__",
        "2*3*4 = 24",
        "*.tmp and *.log",
        ">50% of it",
        r"C:\Users\_ada_\*.txt",
        "5~7 or x~y~z",
        "src/*.rs and tests/*.rs",
        "2**3**4",
        "a_b_c",
        r#"{"c": "*x*"}"#,
        "/home/_ada_/x",
        "3. three\n7. seven",
        "${A}_${B} and $(a)_$(b)",
        "${HOME}/${USER}",
        "($_GET,$_POST)",
        "^[a-z]+$|^[0-9]+$",
        r"C:\Users\John Doe\.ssh\config or C:\Program Files\*.txt",
        r".\.venv\Scripts\activate and %USERPROFILE%\.aws",
        ">£50",
        ">-1",
        "1) one",
        ">>> print(1)",
        "f***ing a*b*c",
        r"\\server\share\_x_",
        "key: [a](b)",
        "![]()",
        "f(*args, **kwargs)",
    ] {
        assert_eq!(shown(text).0, text);
    }
}

#[test]
fn a_sign_within_a_quote_stays() {
    assert_eq!(shown("> >50% of users"), (">50% of users".to_owned(), vec![pair("blockquote", ">50% of users")]));
    assert_eq!(
        shown("> >.5 and more\n> all"),
        (">.5 and more\nall".to_owned(), vec![pair("blockquote", ">.5 and more\nall")])
    );
    assert_eq!(shown("> - 5 apples").0, "• 5 apples");
}

#[test]
fn emphasis_is_seen_where_words_are_not_spaced() {
    assert_eq!(shown("**「あ」**い"), ("「あ」い".to_owned(), vec![pair("bold", "「あ」")]));
    assert_eq!(shown("约**50%**的人"), ("约50%的人".to_owned(), vec![pair("bold", "50%")]));
    assert_eq!(shown("这是**重点**内容").1, [pair("bold", "重点")]);
    assert_eq!(shown(r"约\*\*50%\*\*的人").0, "约**50%**的人");
    assert_eq!(shown("约**50%**的人和**30%**的").1, [pair("bold", "50%"), pair("bold", "30%")]);
    assert_eq!(shown("用**“A”**和**“B”**即可").1, [pair("bold", "“A”"), pair("bold", "“B”")]);
    assert_eq!(shown("**使用`f()`**来").1, [pair("bold", "使用"), pair("code", "f()")]);
    assert_eq!(shown("`约**50%**的`").0, "约**50%**的");
}

#[test]
fn a_formula_is_code() {
    assert_eq!(shown(r"So \(x^2 + y_1\) is."), ("So x^2 + y_1 is.".to_owned(), vec![pair("code", "x^2 + y_1")]));
    assert_eq!(shown(r"$E = mc^2$ costs $5 or $10").0, "E = mc^2 costs $5 or $10");
    assert_eq!(shown("\\[\n\\frac{a}{b} \\\\\nx_1\n\\]").1, [pair("pre", "\\frac{a}{b} \\\\\nx_1")]);
    assert_eq!(shown(r"\[Ann\] \(see below\)").0, "[Ann] (see below)");
    for (markdown, expected) in [
        (r"see \[1\]", "see [1]"),
        (r"f\(x\) and \(x\)", "f(x) and x"),
        (r"\(555\) 123", "(555) 123"),
        (r"Power \[W\]", "Power [W]"),
        (r"\(\{a\}~b\)", r"\{a\}~b"),
        ("> \\[\n> x^2\n> \\]", "[\nx^2\n]"),
    ] {
        assert_eq!(shown(markdown).0, expected);
    }
    assert_eq!(shown("[see $x^2$](https://e.org)").1, [pair("text_link", "see x^2")]);
    assert_eq!(
        shown("`\\(a\\)` and\n```\n$$x_1$$ https://e.org\n```").0.trim_end(),
        "\\(a\\) and\n\n$$x_1$$ https://e.org"
    );
}

#[test]
fn a_bare_address_stays_as_it_is() {
    for (markdown, expected) in [
        ("https://e.org/api/_v1_/users.", "https://e.org/api/_v1_/users."),
        ("**https://e.org/a_b**", "https://e.org/a_b"),
        ("**see https://e.org/x**", "see https://e.org/x"),
        ("(https://e.org/p_(x)_y)", "(https://e.org/p_(x)_y)"),
        ("<https://e.org/_a_>", "https://e.org/_a_"),
        ("https://e.org/页，然后", "https://e.org/页，然后"),
        ("**官网：https://e.org**（官方）", "官网：https://e.org（官方）"),
        ("**https://e.org**—see", "https://e.org—see"),
    ] {
        assert_eq!(shown(markdown).0, expected);
    }
    for (markdown, url) in [
        (
            r"[Titanic](https://en.wikipedia.org/wiki/Titanic_\(1997_film\))",
            "https://en.wikipedia.org/wiki/Titanic_(1997_film)",
        ),
        ("[x](https://e.org/?a=1&amp;b=2)", "https://e.org/?a=1&b=2"),
        ("https://e.org/a[1](https://b.org)", "https://b.org/"),
    ] {
        let found = whole(markdown).entities.into_iter().find_map(|entity| entity.url);
        assert_eq!(found.unwrap().trim_end_matches('/'), url.trim_end_matches('/'), "{markdown}");
    }
    assert_eq!(whole("[x](https://e.org/_a_)").entities[0].url.as_deref(), Some("https://e.org/_a_"));
}

#[test]
fn a_table_keeps_every_cell() {
    assert_eq!(shown("| a | b |\n|---|---|\n| `x | y` | 1 |").0, "a     | b\n------|--\nx | y | 1");
    assert_eq!(shown("| a |\n|---|\n| 1 | 2 | 3 |").0, "a |   |\n--|---|--\n1 | 2 | 3");
    assert_eq!(shown("| 名前 | n |\n|---|---|\n| 日本語 | 1 |").0, "名前   | n\n-------|--\n日本語 | 1");
    let wide = format!("| name | about |\n|---|---|\n| Ada | {} |\n| Bob | short |", "long ".repeat(12).trim());
    assert_eq!(shown(&wide).0, format!("name: Ada\nabout: {}\n\nname: Bob\nabout: short", "long ".repeat(12).trim()));
    assert_eq!(shown(&wide).1, []);
}

#[test]
fn a_text_of_private_use_areas_is_kept() {
    let odd = "\u{f0000} https://e.org/_a_ \u{f0001}\u{ffffd}";
    assert_eq!(shown(odd).0, odd);
}

fn solid(text: &str) -> String {
    text.chars().filter(|c| !is_trimmed(*c)).collect()
}

fn check(markdown: &str, limit: usize) -> Result<(), TestCaseError> {
    let whole = whole(markdown);
    let parts = split(&whole, limit);
    let joined: String = parts.iter().map(|part| solid(&part.text)).collect();
    prop_assert_eq!(joined, solid(&whole.text));
    for part in &parts {
        let length = utf16_length(&part.text);
        prop_assert!(length <= limit && !solid(&part.text).is_empty());
        prop_assert!(part.entities.len() <= 100 && part.entities.is_sorted_by_key(|entity| entity.offset));
        for entity in &part.entities {
            prop_assert!(entity.length > 0 && entity.offset + entity.length <= length);
            // Panics where it would cut a surrogate pair.
            covered(part, entity);
        }
        let is_code = |entity: &&Entity| matches!(entity.kind.as_str(), "pre" | "code");
        let mut end = 0;
        for entity in part.entities.iter().filter(is_code) {
            prop_assert!(entity.offset >= end);
            end = entity.offset + entity.length;
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn parts_fit_and_together_say_everything(
        pieces in proptest::collection::vec(
            prop_oneof![
                "(?s).{0,4}", "[a-c ]{1,6}",
                proptest::sample::select(vec![
                    "\n", "\n\n", "- ", "1. ", "> ", "    ", "```", "```rust\n", "`", "**", "*", "_", "~~", "# ", "|", "| - | - |\n",
                    "[", "](https://x.org)", "![", "](#a)", "<b>", "👍", "👩‍👩‍👧‍👦", "\u{301}", "🇩🇪", "\r\n", "---\n",
                ]).prop_map(str::to_owned),
            ],
            0..60,
        ),
        limit in 8_usize..80,
    ) {
        let markdown = pieces.concat();
        check(&markdown, limit)?;
        prop_assert_eq!(render(&markdown), render(&markdown));
    }

    #[test]
    fn any_text_at_telegrams_limit(text in "(?s)(.|a b|\n|👍){0,1500}") {
        check(&text.repeat(3), MESSAGE_LIMIT_UTF16)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_096))]

    /// Words stand for all that is visible: whatever stands around them, each reaches the reader, in order.
    #[test]
    fn every_word_reaches_the_reader_in_order(
        marks in proptest::collection::vec(
            proptest::sample::select(vec![
                " ", "\n", "\n\n", "- ", "\n1. ", "\n> ", "\n    ", "\n```\n", "\n```rust ", "`", "**", "*", "_", "__", "~~", "~", "\n# ", "|",
                "\n| - | - |\n", "\n|", "[", "]", "](", ")", "](https://x.org/", "](http://localhost/", "![", "]: ", "\n[", "\n]: https://x.org/",
                "](#a)", "<b>", "<br>", "\n---\n", "\n===\n", "$", "$$", "\\(", "\\)", "\\[", "\\", "https://x.org/_", "www.x.org/", "C:\\", "\"", "&amp;",
                "🇩🇪", "。", "「", "<!--", "-->", "<", ">", "\n>", "(", "=",
            ]),
            0..40,
        ),
    ) {
        let mut markdown = String::new();
        let mut words = Vec::new();
        for (index, mark) in marks.iter().enumerate() {
            let word = format!("w{index}w");
            markdown.push_str(mark);
            markdown.push_str(&word);
            words.push(word);
        }
        let part = whole(&markdown);
        let mut at = 0;
        for word in &words {
            let Some(found) = part.text[at..].find(word.as_str()) else {
                let in_entity = part.entities.iter().any(|entity| {
                    entity.url.as_ref().is_some_and(|url| url.contains(word.as_str()))
                        || entity.language.as_ref().is_some_and(|language| language.contains(word.as_str()))
                });
                // The name of a definition that is used.
                let is_label = markdown.contains(&format!("[{word}]: "));
                // A wide table repeats its head in every row.
                let is_cell = markdown.contains("| - | - |") && part.text.contains(word.as_str());
                prop_assert!(in_entity || is_label || is_cell, "{} of {:?} in {:?}", word, markdown, part);
                continue;
            };
            at += found + word.len();
        }
    }
}
