//! Texts that users read, in their language.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A text for everybody, or one per language.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum LocalText {
    /// The same for everybody.
    One(String),
    /// By IETF language tag; `default` is for whoever speaks none of them.
    ByLanguage(BTreeMap<String, String>),
}

impl LocalText {
    /// The text for a language, or for `de` where there is none for `de-AT`; `None` if it is empty or there is none.
    pub fn of(&self, language_code: Option<&str>) -> Option<&str> {
        let text = match self {
            Self::One(text) => Some(text),
            Self::ByLanguage(texts) => {
                let primary = language_code.and_then(|code| code.split(['-', '_']).next());
                let wanted = [language_code, primary, Some("default")].into_iter().flatten();
                wanted.into_iter().find_map(|wanted| {
                    let mut found = texts.iter().filter(|(language, _)| language.eq_ignore_ascii_case(wanted));
                    found.next().map(|(_, text)| text)
                })
            }
        };
        text.map(String::as_str).filter(|text| !text.trim().is_empty())
    }
}

impl From<&str> for LocalText {
    fn from(text: &str) -> Self {
        Self::One(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct File {
        text: LocalText,
    }

    fn parse(toml: &str) -> LocalText {
        toml::from_str::<File>(toml).unwrap().text
    }

    #[test]
    fn each_reader_gets_the_text_of_the_language_or_the_default() {
        let one = parse("text = \"sorry\"");
        assert_eq!((one.of(Some("de")), one.of(None)), (Some("sorry"), Some("sorry")));
        let texts = parse("text = { default = \"sorry\", de = \"leider\", pt-BR = \"desculpe\", fr = \"\" }");
        for (code, expected) in [
            (Some("de"), Some("leider")),
            (Some("de-AT"), Some("leider")),
            (Some("pt-br"), Some("desculpe")),
            (Some("pt"), Some("sorry")),
            (Some(""), Some("sorry")),
            (None, Some("sorry")),
            (Some("fr"), None),
        ] {
            assert_eq!(texts.of(code), expected, "{code:?}");
        }
        assert_eq!(parse("text = \"\"").of(None), None);
        assert_eq!(parse("text = { de = \"leider\" }").of(Some("en")), None);
    }
}
