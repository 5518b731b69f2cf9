//! The environment as checked settings, and the only door to it.

mod dot_env;
mod environment;
mod learn;
mod secret;

use std::net::SocketAddr;
use std::path::PathBuf;

use url::Url;

pub use self::environment::Environment;
pub use self::secret::Secret;
use crate::error::{Error, Result};
use crate::id::Name;

/// The part before `/bot` in a Bot API URL, unless `TELEGRAM_API_URL` says otherwise.
pub const PUBLIC_BOT_API: &str = "https://api.telegram.org";
/// Where OpenAI-compatible clients call, unless `LLM_BASE_URL` says otherwise.
pub const PUBLIC_OPENAI: &str = "https://api.openai.com/v1";

const ADDRESS: &str = "an address; write it like 127.0.0.1:8080 or 0.0.0.0:8080";

/// Settings of this process, from the environment and `.env`. Secrets are read when needed, so that a command only asks
/// for those it uses.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Root of raw, tables and intents: a folder or a URL (`LAKEGRAM_DATA`).
    pub data: String,
    /// Bits of the mode that new files below a local `data` do not have (`LAKEGRAM_UMASK`).
    pub umask: u32,
    /// Files that make a start fast and may be deleted (`LAKEGRAM_CHECKPOINTS`).
    pub checkpoints: PathBuf,
    /// Folder of pipeline files (`LAKEGRAM_PIPELINES`).
    pub pipelines: PathBuf,
    /// Folder of schema files (`LAKEGRAM_SCHEMAS`).
    pub schemas: PathBuf,
    /// Where webhooks arrive (`LAKEGRAM_LISTEN`, or all interfaces at `PORT`).
    pub listen: SocketAddr,
    /// Where metrics and status are shown (`LAKEGRAM_CONSOLE`).
    pub console: SocketAddr,
    /// The part before `/bot` (`TELEGRAM_API_URL`).
    pub bot_api_url: String,
    /// As OpenAI clients take it (`LLM_BASE_URL`).
    pub llm_base_url: String,
    /// Overrides the pipeline's model name (`LLM_MODEL`).
    pub llm_model: Option<String>,
    /// The lane of a receiver whose pipeline does not set one: the host name.
    pub host_lane: Name,
    environment: Environment,
}

impl Settings {
    /// Reads and checks the settings.
    ///
    /// # Errors
    /// A configuration error that names the variable and the expected form.
    pub fn of(environment: Environment) -> Result<Self> {
        let text = |name: &str, default: &str| -> Result<String> {
            Ok(environment.get(name)?.unwrap_or_else(|| default.to_owned()))
        };
        let listen = match environment.get("LAKEGRAM_LISTEN")? {
            Some(address) => socket_address("LAKEGRAM_LISTEN", &address)?,
            None => match environment.get("PORT")? {
                Some(port) => socket_address("PORT", &format!("0.0.0.0:{port}"))?,
                None => socket_address("LAKEGRAM_LISTEN", "127.0.0.1:8080")?,
            },
        };
        Ok(Self {
            data: text("LAKEGRAM_DATA", "./data")?,
            umask: umask(&text("LAKEGRAM_UMASK", "077")?)?,
            checkpoints: text("LAKEGRAM_CHECKPOINTS", "./checkpoints")?.into(),
            pipelines: text("LAKEGRAM_PIPELINES", "./pipelines")?.into(),
            schemas: text("LAKEGRAM_SCHEMAS", "./schemas")?.into(),
            listen,
            console: socket_address("LAKEGRAM_CONSOLE", &text("LAKEGRAM_CONSOLE", "127.0.0.1:8081")?)?,
            bot_api_url: http_url("TELEGRAM_API_URL", text("TELEGRAM_API_URL", PUBLIC_BOT_API)?)?,
            llm_base_url: http_url("LLM_BASE_URL", text("LLM_BASE_URL", PUBLIC_OPENAI)?)?,
            llm_model: environment.get("LLM_MODEL")?,
            host_lane: environment.host_name(),
            environment,
        })
    }

    /// The variables themselves, for secrets.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }
}

/// Errors do not repeat the value: it may be another one than was meant, and a secret.
fn socket_address(name: &str, text: &str) -> Result<SocketAddr> {
    let form = if name == "PORT" { "a port; write a number like 8080" } else { ADDRESS };
    text.parse().map_err(|_| Error::configuration(format!("{name} is not {form}")))
}

fn http_url(name: &str, text: String) -> Result<String> {
    let url = Url::parse(&text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if url.is_none() {
        return Err(Error::configuration(format!("{name} is not a URL; write it like https://host/path")));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn umask(text: &str) -> Result<u32> {
    let umask = u32::from_str_radix(text, 8).ok().filter(|umask| umask & !0o777 == 0);
    // Without its own bits the process could not read what it has written.
    umask.filter(|umask| umask & 0o700 == 0).ok_or_else(|| {
        Error::configuration("LAKEGRAM_UMASK is not a mode for the group and others; write it like 077 or 027")
    })
}

/// A URL as people may see it: without user, password, query and fragment, which may be keys.
pub fn shown_url(text: &str) -> String {
    let Ok(mut url) = Url::parse(text) else { return "a URL".to_owned() };
    url.set_query(None);
    url.set_fragment(None);
    // A URL without a host has none of these.
    let _had_none = url.set_username("").and_then(|()| url.set_password(None));
    url.as_str().trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Result<Settings> {
        Settings::of(Environment::from_pairs(pairs.iter().copied()))
    }

    #[test]
    fn without_a_variable_the_defaults_hold() {
        let settings = settings(&[]).unwrap();
        assert_eq!(settings.data, "./data");
        assert_eq!(settings.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(settings.bot_api_url, "https://api.telegram.org");
    }

    #[test]
    fn a_port_alone_opens_all_interfaces_and_listen_wins_over_it() {
        assert_eq!(settings(&[("PORT", "9000")]).unwrap().listen.to_string(), "0.0.0.0:9000");
        let both = settings(&[("PORT", "9000"), ("LAKEGRAM_LISTEN", "127.0.0.1:1")]).unwrap();
        assert_eq!(both.listen.to_string(), "127.0.0.1:1");
    }

    #[test]
    fn a_wrong_value_is_named_with_its_form() {
        let error = settings(&[("LAKEGRAM_LISTEN", "8080")]).unwrap_err().to_string();
        assert_eq!(error, "LAKEGRAM_LISTEN is not an address; write it like 127.0.0.1:8080 or 0.0.0.0:8080");
        let error = settings(&[("PORT", "http")]).unwrap_err().to_string();
        assert_eq!(error, "PORT is not a port; write a number like 8080");
    }

    #[test]
    fn a_umask_is_octal_and_leaves_us_our_own_files() {
        assert_eq!(settings(&[]).unwrap().umask, 0o077);
        assert_eq!(settings(&[("LAKEGRAM_UMASK", "0027")]).unwrap().umask, 0o027);
        for wrong in ["8", "1777", "777", "0o22", "-1", "u=rwx"] {
            assert!(settings(&[("LAKEGRAM_UMASK", wrong)]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_wrong_value_is_not_repeated_for_it_may_be_a_secret() {
        for name in ["LAKEGRAM_LISTEN", "LAKEGRAM_CONSOLE", "PORT", "LLM_BASE_URL", "TELEGRAM_API_URL"] {
            for value in ["1:a-s3cret", "ftp://user:a-s3cret@host/", "https://?key=a-s3cret", "a-s3cret@host:99999"] {
                let error = settings(&[(name, value)]).unwrap_err().to_string();
                assert!(error.starts_with(name) && !error.contains("s3cret"), "{error}");
            }
        }
    }

    #[test]
    fn a_url_is_shown_without_what_may_be_a_key() {
        assert_eq!(shown_url("https://me:a-s3cret@host:8/v1/?key=a-s3cret#a-s3cret"), "https://host:8/v1");
        assert_eq!(shown_url("https://a-s3cret@host"), "https://host");
        assert_eq!(shown_url("a-s3cret"), "a URL");
    }
}
