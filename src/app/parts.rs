//! Clients and secrets made from settings.

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::llm::{DatabricksAuth, ModelClient, ModelEndpoint};
use crate::pipeline::{ModelSettings, Provider};
use crate::settings::{Environment, PUBLIC_OPENAI, Settings};

/// The secrets in the variable `name`: one, or two separated by a comma.
pub(super) fn webhook_secrets(environment: &Environment, name: &str) -> Result<Vec<String>> {
    let mend = "choose 16 or more letters and digits, for example with `openssl rand -hex 32`";
    let value = environment.require(name, mend)?;
    let secrets: Vec<String> = value.split(',').map(|secret| secret.trim().to_owned()).collect();
    // https://core.telegram.org/bots/api#setwebhook: 1-256 characters, A-Z, a-z, 0-9, _ and -.
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let valid = |secret: &String| (1..=256).contains(&secret.len()) && secret.chars().all(fits);
    if secrets.len() > 2 || !secrets.iter().all(valid) {
        return Err(Error::configuration(format!(
            "{name}: write one secret, or two separated by a comma, of 1 to 256 letters, digits, `_` and `-`"
        )));
    }
    Ok(secrets)
}

/// The client of a pipeline's model.
pub(super) fn model_client(settings: &Settings, model: &ModelSettings, clock: &Clock) -> Result<ModelClient> {
    let name = settings.llm_model.as_deref().unwrap_or(&model.name);
    let endpoint = match model.provider {
        Provider::Openai => openai(settings)?,
        Provider::Databricks => databricks(settings.environment())?,
    };
    ModelClient::new(endpoint, name, model.timeout, clock)
}

fn openai(settings: &Settings) -> Result<ModelEndpoint> {
    let api_key = settings.environment().get("LLM_API_KEY")?;
    if api_key.is_none() && settings.llm_base_url == PUBLIC_OPENAI {
        return Err(Error::configuration(
            "LLM_API_KEY is not set; put your OpenAI key into .env, or set LLM_BASE_URL to a server that needs none",
        ));
    }
    Ok(ModelEndpoint::OpenAi { base_url: settings.llm_base_url.clone(), api_key })
}

fn databricks(environment: &Environment) -> Result<ModelEndpoint> {
    let host = environment.require("DATABRICKS_HOST", "write the workspace URL, https://….cloud.databricks.com")?;
    let auth = match environment.get("DATABRICKS_TOKEN")? {
        Some(token) => DatabricksAuth::Token(token),
        None => {
            let mend = "set DATABRICKS_TOKEN, or DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET";
            DatabricksAuth::Client {
                id: environment.require("DATABRICKS_CLIENT_ID", mend)?,
                secret: environment.require("DATABRICKS_CLIENT_SECRET", mend)?,
            }
        }
    };
    Ok(ModelEndpoint::Databricks { host, auth })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(value: &str) -> Result<Vec<String>> {
        webhook_secrets(&Environment::from_pairs([("SECRET", value)]), "SECRET")
    }

    #[test]
    fn one_or_two_secrets_are_read() {
        assert_eq!(secrets("a-b").unwrap(), ["a-b"]);
        assert_eq!(secrets("new, old").unwrap(), ["new", "old"]);
    }

    #[test]
    fn what_telegram_would_not_take_is_refused() {
        for wrong in ["a,b,c", "a b", "ä", "a,"] {
            assert!(secrets(wrong).is_err(), "{wrong}");
        }
        assert!(secrets("").unwrap_err().to_string().starts_with("SECRET is not set"));
    }
}
