//! The parameters of a call, however they were sent: query string, form or JSON.

use serde_json::{Map, Value};

/// The parameters of one call.
#[derive(Clone, Debug, Default)]
pub(super) struct Params(Map<String, Value>);

impl Params {
    /// Parses the query string and the body; the body wins.
    ///
    /// # Errors
    /// What is wrong with the body, in Telegram's words.
    pub(super) fn parse(query: Option<&str>, content_type: &str, body: &[u8]) -> Result<Self, &'static str> {
        let mut params = Map::new();
        let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        params.extend(pairs.map(|(name, value)| (name.into_owned(), Value::String(value.into_owned()))));
        if content_type.starts_with("application/json") && !body.is_empty() {
            match serde_json::from_slice(body) {
                Ok(Value::Object(object)) => params.extend(object),
                Ok(_) | Err(_) => return Err("Bad Request: can't parse JSON object"),
            }
        } else if content_type.starts_with("application/x-www-form-urlencoded") {
            let pairs = url::form_urlencoded::parse(body);
            params.extend(pairs.map(|(name, value)| (name.into_owned(), Value::String(value.into_owned()))));
        }
        Ok(Self(params))
    }

    /// A number, or a string with one.
    pub(super) fn integer(&self, name: &str) -> Option<i64> {
        let value = self.0.get(name)?;
        value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())
    }

    /// A string; empty if not given.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether a parameter is given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// A boolean; false if not given.
    pub(super) fn flag(&self, name: &str) -> bool {
        match self.0.get(name) {
            Some(Value::Bool(flag)) => *flag,
            Some(Value::String(text)) => matches!(text.to_ascii_lowercase().as_str(), "true" | "yes" | "1"),
            Some(Value::Number(number)) => number.as_i64() == Some(1),
            _ => false,
        }
    }

    /// A JSON value: as it is in a JSON body, parsed from the string in a form. `None` if not given.
    ///
    /// # Errors
    /// When the string is not JSON.
    pub(super) fn json(&self, name: &str) -> Result<Option<Value>, serde_json::Error> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => serde_json::from_str(text).map(Some),
            Some(value) => Ok(Some(value.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_form_and_query_say_the_same() {
        let form = "application/x-www-form-urlencoded";
        let ways = [
            Params::parse(None, "application/json", br#"{"chat_id": -5, "text": "a b", "entities": [1], "on": true}"#),
            Params::parse(None, form, b"chat_id=-5&text=a+b&entities=%5B1%5D&on=True"),
            Params::parse(Some("chat_id=-5&text=a%20b&entities=[1]&on=1"), "", b""),
            Params::parse(Some("chat_id=7"), form, b"chat_id=-5&text=a+b&entities=[1]&on=true"),
        ];
        for params in ways {
            let params = params.unwrap();
            assert_eq!(params.integer("chat_id"), Some(-5));
            assert_eq!(params.text("text"), "a b");
            assert_eq!(params.json("entities").unwrap(), Some(serde_json::json!([1])));
            assert!(params.flag("on"));
            assert!(!params.flag("off"));
        }
    }

    #[test]
    fn a_body_that_is_no_object_is_refused() {
        assert!(Params::parse(None, "application/json", b"[1]").is_err());
        assert!(Params::parse(None, "application/json", b"{").is_err());
    }
}
