//! Which route matches a row, and who answers it.

use super::addressee::{self, Addressee};
use super::rows::BronzeRow;
use crate::id::BotId;
use crate::pipeline::{Answer, Groups, Route};

/// What happens to a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    /// Who answers it.
    pub(super) answer: Answer,
    /// The name or number of the route that says so, if there is one.
    pub(super) route: Option<String>,
    /// Whether that depends on the bot's name.
    pub(super) is_named: bool,
}

impl Decision {
    const IGNORED: Self = Self { answer: Answer::Nobody, route: None, is_named: false };
}

/// Kinds of updates in which a person speaks. Edits are not included: Telegram sends them for changes nobody made.
const SPOKEN: [&str; 2] = ["message", "channel_post"];

/// Decides about a row: the first matching route counts.
pub(super) fn decide(row: &BronzeRow, routes: &[Route], groups: Groups, bot_id: Option<BotId>) -> Decision {
    let spoken = row.update_type.as_deref().is_some_and(|kind| SPOKEN.contains(&kind));
    let text = row.text.as_deref().map(str::trim).filter(|text| !text.is_empty());
    let (true, true, Some(text)) = (is_ours(row, bot_id), spoken, text) else { return Decision::IGNORED };
    // The channel post it is a copy of is the question.
    let addressee = addressee::of(row, text, groups);
    if row.context.is_automatic_forward || addressee == Addressee::Others {
        return Decision::IGNORED;
    }
    for (number, route) in routes.iter().enumerate() {
        if route.matches.from_bot == row.context.is_from_bot && matches(route, text) {
            let name = route.name.clone().unwrap_or_else(|| (number + 1).to_string());
            let is_named = addressee == Addressee::Named;
            return Decision { answer: route.answer, route: Some(name), is_named };
        }
    }
    Decision::IGNORED
}

/// Whether a row belongs to the bot that answers; all do where none is named.
pub(super) fn is_ours(row: &BronzeRow, bot_id: Option<BotId>) -> bool {
    bot_id.is_none_or(|bot_id| bot_id == row.bot_id)
}

fn matches(route: &Route, text: &str) -> bool {
    let wanted_text = route.matches.text.is_none_or(|wanted| wanted);
    let wanted_command = route.matches.command.as_deref().is_none_or(|wanted| command(text) == Some(wanted));
    wanted_text && wanted_command
}

/// The command a text begins with: `start` of `/start@some_bot now`.
fn command(text: &str) -> Option<&str> {
    let word = text.strip_prefix('/')?.split_whitespace().next()?;
    word.split('@').next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telegram::update::MessageContext;

    fn routes(text: &str) -> Vec<Route> {
        #[derive(serde::Deserialize)]
        struct Routes {
            route: Vec<Route>,
        }
        toml::from_str::<Routes>(text).unwrap().route
    }

    fn row(kind: &str, text: &str) -> BronzeRow {
        BronzeRow { update_type: Some(kind.to_owned()), text: Some(text.to_owned()), ..BronzeRow::default() }
    }

    #[test]
    fn text_of_messages_and_posts_asks_and_edits_do_not() {
        let routes = routes("[[route]]\nmatch = { text = true }\nanswer = \"model\"");
        let ask = Decision { answer: Answer::Model, route: Some("1".to_owned()), is_named: false };
        assert_eq!(decide(&row("message", "hi"), &routes, Groups::All, None), ask);
        assert_eq!(decide(&row("channel_post", "hi"), &routes, Groups::All, None), ask);
        for ignored in [row("edited_message", "hi"), row("message", "  "), row("callback_query", "hi")] {
            assert_eq!(decide(&ignored, &routes, Groups::All, None), Decision::IGNORED);
        }
        assert_eq!(decide(&row("message", "hi"), &routes, Groups::All, Some(BotId(9))), Decision::IGNORED);
    }

    #[test]
    fn bots_are_answered_only_where_a_route_says_so_and_copies_of_channel_posts_never() {
        let from = |is_from_bot, is_automatic_forward| {
            let context = MessageContext { is_from_bot, is_automatic_forward, ..MessageContext::default() };
            BronzeRow { context, ..row("message", "hi") }
        };
        let people = "[[route]]\nmatch = { text = true }\nanswer = \"model\"\n";
        let bots = "[[route]]\nname = \"bots\"\nmatch = { from_bot = true }\nanswer = \"model\"\n";
        let route = |row: BronzeRow, text: &str| decide(&row, &routes(text), Groups::All, None).route;
        assert_eq!(route(from(false, false), people).as_deref(), Some("1"));
        assert_eq!(route(from(true, false), people), None);
        let both = format!("{bots}{people}");
        assert_eq!(route(from(true, false), &both).as_deref(), Some("bots"));
        assert_eq!(route(from(false, false), &both).as_deref(), Some("2"));
        assert_eq!(route(from(false, true), &both), None);
    }

    #[test]
    fn the_first_route_that_matches_counts() {
        let routes = routes(
            "[[route]]\nname = \"quiet\"\nmatch = { command = \"stop\" }\nanswer = \"nobody\"\n\
             [[route]]\nmatch = { text = true }\nanswer = \"model\"",
        );
        let quiet = Decision { answer: Answer::Nobody, route: Some("quiet".to_owned()), is_named: true };
        assert_eq!(decide(&row("message", "/stop@my_bot please"), &routes, Groups::All, None), quiet);
        assert_eq!(
            decide(&row("message", "/stopped"), &routes, Groups::All, None),
            Decision { answer: Answer::Model, route: Some("2".to_owned()), is_named: false }
        );
    }
}
