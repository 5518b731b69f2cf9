//! Whom a message is meant for: not everything that is said in a group asks the bot.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::rows::BronzeRow;
use crate::clock::Clock;
use crate::pipeline::Groups;
use crate::telegram::BotClient;
use crate::telegram::update::Topic;

/// How long a bot whose name could not be learned goes without one.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// Telegram's shortest usernames have so many characters (<https://core.telegram.org/method/account.checkUsername>).
const SHORTEST_NAME: usize = 4;

/// Whom a message is meant for, as far as it says so without the bot's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Addressee {
    /// The bot that received it.
    Bot,
    /// Somebody whom it names.
    Named,
    /// Other people in the group.
    Others,
}

/// Whom the message in a row with this text is meant for.
pub(super) fn of(row: &BronzeRow, text: &str, groups: Groups) -> Addressee {
    if let Some(name) = command_target(text) {
        return if name.is_empty() { Addressee::Bot } else { Addressee::Named };
    }
    let is_group = matches!(row.chat_type.as_deref(), Some("group" | "supergroup"));
    let is_conversation = matches!(row.context.topic, Some(Topic::DirectMessages(_)));
    if groups == Groups::All || !is_group || is_conversation || row.context.is_to_bot {
        return Addressee::Bot;
    }
    if names(text).next().is_some() { Addressee::Named } else { Addressee::Others }
}

/// Whether a text names the bot. A bot that does not know its name takes the mention of any bot for its own, since
/// silence is worse, but no command for another.
pub(super) fn is_named(text: &str, username: Option<&str>) -> bool {
    if let Some(target) = command_target(text.trim()) {
        return username.is_some_and(|name| name.eq_ignore_ascii_case(target));
    }
    names(text).any(|mention| match username {
        Some(name) => name.eq_ignore_ascii_case(mention),
        None => mention.to_ascii_lowercase().ends_with("bot"),
    })
}

/// The bot that a command is for: `my_bot` of `/start@my_bot now`, empty for `/start`; `None` if it is no command.
fn command_target(text: &str) -> Option<&str> {
    let command = text.strip_prefix('/')?.split(char::is_whitespace).next()?;
    let (command, target) = command.split_once('@').unwrap_or((command, ""));
    let is_command =
        !command.is_empty() && command.chars().all(|character| character.is_alphanumeric() || character == '_');
    is_command.then_some(target)
}

/// The usernames that a text mentions.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let mentions = text.match_indices('@').filter(move |(at, _)| !text[..*at].ends_with(is_part));
    mentions.filter_map(move |(at, _)| {
        let name = &text[at + 1..];
        let name = &name[..name.find(|character| !is_part(character)).unwrap_or(name.len())];
        (name.len() >= SHORTEST_NAME).then_some(name)
    })
}

/// The bot's own name, learned from Telegram when it is first needed.
#[derive(Debug)]
pub(super) struct BotName {
    bot: Option<BotClient>,
    known: Mutex<Known>,
    clock: Clock,
}

#[derive(Debug)]
enum Known {
    Nothing { since: Option<Duration> },
    Name(Option<Arc<str>>),
}

impl BotName {
    pub(super) fn new(bot: Option<BotClient>, clock: &Clock) -> Self {
        Self { bot, known: Mutex::new(Known::Nothing { since: None }), clock: clock.clone() }
    }

    /// The username; `None` while Telegram cannot be asked.
    pub(super) async fn get(&self) -> Option<Arc<str>> {
        let bot = self.bot.as_ref()?;
        let mut known = self.known.lock().await;
        let now = self.clock.monotonic();
        match &*known {
            Known::Name(name) => return name.clone(),
            Known::Nothing { since: Some(since) } if now.saturating_sub(*since) < ASK_AGAIN => return None,
            Known::Nothing { .. } => {}
        }
        match bot.get_me().await {
            Ok(user) => {
                let name: Option<Arc<str>> = user.username.map(Arc::from);
                *known = Known::Name(name.clone());
                name
            }
            Err(fault) => {
                tracing::warn!(?fault, retry_in = ?ASK_AGAIN, "cannot learn the bot's name from Telegram");
                *known = Known::Nothing { since: Some(now) };
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telegram::update::MessageContext;

    fn addressee(chat_type: &str, text: &str, groups: Groups) -> Addressee {
        of(&BronzeRow { chat_type: Some(chat_type.to_owned()), ..BronzeRow::default() }, text, groups)
    }

    #[test]
    fn in_a_group_only_what_is_meant_for_the_bot_asks_it() {
        for (text, expected) in [
            ("Bob, lunch at 12?", Addressee::Others),
            ("mail me at ada@example.org", Addressee::Others),
            ("@my_bot hi", Addressee::Named),
            ("hi,@my_bot!", Addressee::Named),
            ("/start", Addressee::Bot),
            ("/start@my_bot now", Addressee::Named),
            ("/ 2", Addressee::Others),
            ("/etc/passwd is a file", Addressee::Others),
        ] {
            assert_eq!(addressee("supergroup", text, Groups::Addressed), expected, "{text}");
        }
        assert_eq!(addressee("private", "hi", Groups::Addressed), Addressee::Bot);
        assert_eq!(addressee("channel", "hi", Groups::Addressed), Addressee::Bot);
        assert_eq!(addressee("group", "hi", Groups::All), Addressee::Bot);
        assert_eq!(addressee("group", "/start@other_bot", Groups::All), Addressee::Named);
        for context in [
            MessageContext { is_to_bot: true, ..MessageContext::default() },
            MessageContext { topic: Some(Topic::DirectMessages(7)), ..MessageContext::default() },
        ] {
            let row = BronzeRow { chat_type: Some("supergroup".to_owned()), context, ..BronzeRow::default() };
            assert_eq!(of(&row, "hi", Groups::Addressed), Addressee::Bot);
        }
    }

    #[test]
    fn a_name_counts_whatever_its_case_and_only_as_a_whole() {
        for (text, expected) in [
            ("@My_Bot hi", true),
            ("thanks (@my_bot)", true),
            ("@my_bot2 hi", false),
            ("@other_bot hi", false),
            ("/start@MY_bot", true),
            ("/start@other_bot @my_bot", false),
        ] {
            assert_eq!(is_named(text, Some("my_bot")), expected, "{text}");
        }
        assert!(is_named("@some_bot hi", None) && !is_named("@ada_l hi", None) && !is_named("/start@some_bot", None));
    }
}
