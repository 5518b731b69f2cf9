//! Which values of the environment are secrets, or may hold one: nothing that this process writes shows them.

use serde_json::Value;
use url::Url;

/// What is in the name of a variable that holds a secret.
const WORDS: [&str; 9] = ["KEY", "KEYS", "TOKEN", "TOKENS", "SECRET", "PASSWORD", "PASSWD", "PASS", "SAS"];
/// Parameters of a URL that are no secrets.
const PLAIN_PARAMETERS: [&str; 3] = ["api-version", "version", "region"];
/// The shortest value that is taken for a secret by its name, in bytes.
const SHORTEST: usize = 8;

/// Notes what is secret in the value of a variable, with `know`.
pub(super) fn learn(name: &str, value: &str, know: fn(&str)) {
    if holds_secret(name) && value.len() >= SHORTEST && !is_path(value) {
        match serde_json::from_str(value) {
            Ok(Value::Object(key_file)) => {
                let secrets = key_file.iter().filter(|(name, _)| holds_secret(name));
                secrets.filter_map(|(_, value)| value.as_str()).for_each(know);
            }
            _ => know(value),
        }
    }
    if value.contains("://")
        && let Ok(url) = Url::parse(value.trim())
    {
        learn_url(&url, know);
    }
}

/// A key may be the user, the password, a parameter, or all of the query.
fn learn_url(url: &Url, know: fn(&str)) {
    // Azure's user is a container.
    let is_container = matches!(url.scheme(), "az" | "adl" | "azure" | "abfs" | "abfss");
    if let Some(secret) = url.password().or_else(|| (!is_container).then(|| url.username())) {
        know(secret);
    }
    for (name, value) in url.query_pairs() {
        let secret = if value.is_empty() { &name } else { &value };
        if secret.len() >= SHORTEST && !PLAIN_PARAMETERS.contains(&&*name) {
            know(secret);
        }
    }
}

fn holds_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    !name.ends_with("_FILE") && name.split(['_', '-']).any(|word| WORDS.contains(&word))
}

/// Some variables name a file with the secret in it.
fn is_path(value: &str) -> bool {
    value.starts_with('/') && std::path::Path::new(value).exists()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::{know, redact};

    #[test]
    fn whatever_may_be_a_secret_is_hidden_and_nothing_else() {
        let key_file = r#"{"type": "service_account", "private_key": "-----BEGIN\nlearned-in-a-key-file"}"#;
        for (name, value) in [
            ("AWS_SECRET_ACCESS_KEY", "learned-access-key"),
            ("my_bot_token", "77:learned-bot-token"),
            ("LLM_BASE_URL", "https://somebody:learned%3Apassword@host-of-the-model/v1?key=learned-parameter"),
            ("TELEGRAM_API_URL", "http://learned-user@host/?learned-query-alone"),
            ("GOOGLE_SERVICE_ACCOUNT_KEY", key_file),
            ("LAKEGRAM_DATA", "./folder-of-data"),
            ("LAKEGRAM_DATA", "abfss://the-container@account.dfs.core.windows.net/x"),
            ("TOKEN_FILE", "/run/secrets/learned-no-path"),
            ("SIGNING_KEY", "/usr"),
        ] {
            learn(name, value, know);
        }
        for secret in [
            "learned-access-key",
            "learned-bot-token",
            "learned:password",
            "learned%3Apassword",
            "learned-parameter",
            "learned-user",
            "learned-query-alone",
            "learned-in-a-key-file",
        ] {
            let shown = redact(secret);
            assert!(shown.contains("***") && shown.len() < 12, "{secret}: {shown}");
        }
        for plain in [
            "somebody",
            "host-of-the-model",
            "./folder-of-data",
            "the-container",
            "/run/secrets/xlearne",
            "service_account",
        ] {
            assert_eq!(redact(plain), plain);
        }
    }
}
