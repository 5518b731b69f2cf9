//! Clients and secrets, created from settings.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::id::BotId;
use crate::llm::{DatabricksAuth, ModelClient, ModelEndpoint};
use crate::pipeline::{ModelSettings, Provider};
use crate::settings::{Environment, PUBLIC_OPENAI, Secret, Settings};
use crate::telegram::client::checked_token;

/// The shortest webhook secret. Anybody may try at any time.
const SHORTEST_SECRET: usize = 16;

/// The secrets of this process that name who it is, each read once and then followed. Clones of an app share them.
#[derive(Debug, Default)]
pub struct Secrets {
    by_variable: Mutex<HashMap<String, Secret>>,
}

impl Secrets {
    /// The token of a bot. A later one that names another bot is refused: what was begun for one bot is not ended for
    /// another.
    pub(super) fn bot_token(&self, environment: &Environment, name: &str, clock: &Clock) -> Result<Secret> {
        if let Some(held) = self.held(name) {
            return Ok(held);
        }
        let fix = "ask @BotFather for a token and put it into .env (see .env.example)";
        let value = environment.require(name, fix)?;
        let bot_id = BotId::of_token(&value).map_err(|error| error.during(name))?;
        self.followed(environment, name, clock, move |value| {
            checked_token(value)?;
            match BotId::of_token(value)? == bot_id {
                true => Ok(()),
                false => Err(Error::configuration(
                    "it names another bot than at the start; start another process for that one",
                )),
            }
        })
    }

    /// The secrets of a webhook: one, or two separated by a comma.
    pub(super) fn webhook(&self, environment: &Environment, name: &str, clock: &Clock) -> Result<Secret> {
        if let Some(held) = self.held(name) {
            return Ok(held);
        }
        environment.require(name, "choose 16 or more letters and digits, for example with `openssl rand -hex 32`")?;
        let variable = name.to_owned();
        self.followed(environment, name, clock, move |value| check_webhook_secrets(&variable, value))
    }

    /// A secret that was read before. It is followed from then on, and its source may be missing for a moment while the
    /// file is being replaced.
    fn held(&self, name: &str) -> Option<Secret> {
        self.by_variable.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn followed(
        &self,
        environment: &Environment,
        name: &str,
        clock: &Clock,
        check: impl Fn(&str) -> Result<()> + Send + Sync + 'static,
    ) -> Result<Secret> {
        let mut by_variable = self.by_variable.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(secret) = by_variable.get(name) {
            return Ok(secret.clone());
        }
        let secret = Secret::of_variable(environment, name, clock, check)?;
        let secret = secret.ok_or_else(|| Error::configuration(format!("{name} is not set")))?;
        by_variable.insert(name.to_owned(), secret.clone());
        Ok(secret)
    }
}

/// Whether these are one or two secrets that Telegram takes
/// (<https://core.telegram.org/bots/api#setwebhook>: 1-256 characters, A-Z, a-z, 0-9, _ and -) and nobody guesses.
fn check_webhook_secrets(name: &str, value: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let valid = |secret: &str| (SHORTEST_SECRET..=256).contains(&secret.len()) && secret.chars().all(fits);
    if value.split(',').count() > 2 || !value.split(',').all(|secret| valid(secret.trim())) {
        return Err(Error::configuration(format!(
            "{name}: write one secret, or two separated by a comma, of {SHORTEST_SECRET} to 256 letters, digits, `_` and \
             `-`, for example what `openssl rand -hex 32` prints"
        )));
    }
    Ok(())
}

/// The client of a pipeline's model.
pub(super) fn model_client(settings: &Settings, model: &ModelSettings, clock: &Clock) -> Result<ModelClient> {
    let name = settings.llm_model.as_deref().unwrap_or(&model.name);
    let endpoint = match model.provider {
        Provider::Openai => openai(settings, clock)?,
        Provider::Databricks => databricks(settings.environment(), clock)?,
    };
    ModelClient::new(endpoint, name, model.timeout, clock)
}

fn openai(settings: &Settings, clock: &Clock) -> Result<ModelEndpoint> {
    let api_key = Secret::of_variable(settings.environment(), "LLM_API_KEY", clock, |_| Ok(()))?;
    if api_key.is_none() && settings.llm_base_url == PUBLIC_OPENAI {
        return Err(Error::configuration(
            "LLM_API_KEY is not set; put your OpenAI key into .env, or set LLM_BASE_URL to a server that does not need one",
        ));
    }
    Ok(ModelEndpoint::OpenAi { base_url: settings.llm_base_url.clone(), api_key })
}

fn databricks(environment: &Environment, clock: &Clock) -> Result<ModelEndpoint> {
    let host = environment.require("DATABRICKS_HOST", "write the workspace URL, https://….cloud.databricks.com")?;
    let followed = |name| Secret::of_variable(environment, name, clock, |_| Ok(()));
    let auth = match followed("DATABRICKS_TOKEN")? {
        Some(token) => DatabricksAuth::Token(token),
        None => {
            let fix = "set DATABRICKS_TOKEN, or DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET";
            DatabricksAuth::Client {
                id: environment.require("DATABRICKS_CLIENT_ID", fix)?,
                secret: followed("DATABRICKS_CLIENT_SECRET")?
                    .ok_or_else(|| Error::configuration(format!("DATABRICKS_CLIENT_SECRET is not set; {fix}")))?,
            }
        }
    };
    Ok(ModelEndpoint::Databricks { host, auth })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(value: &str) -> Result<String> {
        let environment = Environment::from_pairs([("SECRET", value)]);
        Ok(Secrets::default().webhook(&environment, "SECRET", &Clock::system())?.current().to_string())
    }

    #[test]
    fn a_token_of_another_bot_is_refused_and_one_of_the_same_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "7:one").unwrap();
        let environment = Environment::from_pairs([("TOKEN_FILE", file.to_str().unwrap())]);
        let (secrets, clock) = (Secrets::default(), Clock::system());
        let token = secrets.bot_token(&environment, "TOKEN", &clock).unwrap();
        for (text, expected) in [("7:two", "7:two"), ("8:two", "7:two"), ("7:t/wo", "7:two"), ("7:three", "7:three")] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(&*token.renewed(), expected);
        }
        std::fs::write(&file, "8:other").unwrap();
        assert_eq!(&*secrets.bot_token(&environment, "TOKEN", &clock).unwrap().renewed(), "7:three", "nor later on");
    }

    #[test]
    fn what_was_read_once_is_held_while_its_source_is_away() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "7:one").unwrap();
        let path = file.to_str().unwrap();
        let environment = Environment::from_pairs([("TOKEN_FILE", path), ("SECRET_FILE", path), ("OTHER_FILE", path)]);
        let (secrets, clock) = (Secrets::default(), Clock::system());
        secrets.bot_token(&environment, "TOKEN", &clock).unwrap();
        std::fs::write(&file, "a-secret-to-hold").unwrap();
        secrets.webhook(&environment, "SECRET", &clock).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(&*secrets.bot_token(&environment, "TOKEN", &clock).unwrap().current(), "7:one");
        assert_eq!(&*secrets.webhook(&environment, "SECRET", &clock).unwrap().current(), "a-secret-to-hold");
        assert!(secrets.webhook(&environment, "OTHER", &clock).is_err());
    }

    #[test]
    fn one_or_two_secrets_are_read() {
        for right in ["sixteen_letters-", "the-new-secret-16, the-old-secret-16"] {
            assert_eq!(secrets(right).unwrap(), right);
        }
    }

    #[test]
    fn what_telegram_would_not_take_or_others_would_guess_is_refused() {
        let long = "sixteen_letters-";
        let of_three = format!("{long},{long},{long}");
        for wrong in
            [of_three.as_str(), "sixteen letters ,", "sixteen-letters-ä", "sixteen_letters-,", "fifteen_letters", "a,b"]
        {
            let error = secrets(wrong).unwrap_err().to_string();
            assert!(error.contains("of 16 to 256 letters") && !error.contains("teen"), "{wrong}: {error}");
        }
        assert!(secrets("").unwrap_err().to_string().starts_with("SECRET is not set"));
    }
}
