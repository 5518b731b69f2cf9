//! Where the columns are in each kind of update (<https://core.telegram.org/bots/api#update>, Bot API 10.3).

/// The fields to follow, starting from the value of the kind's own field.
pub(super) type Path = &'static [&'static str];

/// Where to find the chat.
#[derive(Clone, Copy)]
pub(super) enum ChatPlace {
    /// There is none.
    Nowhere,
    /// A `Chat` object.
    Object(Path),
    /// Only the id of a private chat.
    Id(&'static str),
}

/// Where a kind keeps the values of the columns.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// The chat.
    pub(super) chat: ChatPlace,
    /// The `User` who caused the update, the first that exists. A chat that speaks in its own name (`sender_chat`,
    /// `actor_chat`, `voter_chat`) is not a user, so its id never appears among user ids.
    pub(super) user: &'static [Path],
    /// Where `message_id` and `message_thread_id` are.
    pub(super) message: Option<Path>,
    /// When it happened, in Unix seconds.
    pub(super) date: Option<Path>,
    /// Whether the kind is itself a message with text, media, a signature and a message it replies to. The message
    /// below a pressed button is not: the bot wrote it, at another time.
    pub(super) is_message: bool,
    /// Whether it is a button press.
    pub(super) is_callback: bool,
}

const NOTHING: Layout =
    Layout { chat: ChatPlace::Nowhere, user: &[], message: None, date: None, is_message: false, is_callback: false };
const BY_FROM: Layout = Layout { user: &[&["from"]], ..NOTHING };
const BY_USER: Layout = Layout { user: &[&["user"]], ..NOTHING };
const IN_CHAT: Layout = Layout { chat: ChatPlace::Object(&["chat"]), ..NOTHING };
const DATED_IN_CHAT: Layout = Layout { date: Some(&["date"]), ..IN_CHAT };
const MEMBER: Layout = Layout { user: &[&["from"]], ..DATED_IN_CHAT };
const MESSAGE: Layout = Layout { message: Some(&[]), is_message: true, ..MEMBER };
const REACTION_COUNT: Layout = Layout { message: Some(&[]), ..DATED_IN_CHAT };
const REACTION: Layout = Layout { user: &[&["user"]], ..REACTION_COUNT };

/// Every kind with its layout, in the order of the documentation.
pub(super) const LAYOUTS: [(&str, Layout); 27] = [
    ("message", MESSAGE),
    ("edited_message", MESSAGE),
    ("channel_post", MESSAGE),
    ("edited_channel_post", MESSAGE),
    ("business_connection", Layout { chat: ChatPlace::Id("user_chat_id"), date: Some(&["date"]), ..BY_USER }),
    ("business_message", MESSAGE),
    ("edited_business_message", MESSAGE),
    ("deleted_business_messages", IN_CHAT),
    ("guest_message", MESSAGE),
    ("stopped_message_generation", Layout { message: Some(&[]), ..IN_CHAT }),
    ("message_reaction", REACTION),
    ("message_reaction_count", REACTION_COUNT),
    ("inline_query", BY_FROM),
    ("chosen_inline_result", BY_FROM),
    (
        "callback_query",
        Layout {
            chat: ChatPlace::Object(&["message", "chat"]),
            message: Some(&["message"]),
            is_callback: true,
            ..BY_FROM
        },
    ),
    ("shipping_query", BY_FROM),
    ("pre_checkout_query", BY_FROM),
    ("purchased_paid_media", BY_FROM),
    ("poll", NOTHING),
    ("poll_answer", BY_USER),
    ("my_chat_member", MEMBER),
    ("chat_member", MEMBER),
    ("chat_join_request", MEMBER),
    ("chat_boost", Layout { user: &[&["boost", "source", "user"]], date: Some(&["boost", "add_date"]), ..IN_CHAT }),
    ("removed_chat_boost", Layout { user: &[&["source", "user"]], date: Some(&["remove_date"]), ..IN_CHAT }),
    ("managed_bot", BY_USER),
    ("subscription", BY_USER),
];

/// A kind newer than this program: most have what they share with the others in the usual places.
const NEW: Layout = Layout { user: &[&["from"], &["user"]], ..REACTION_COUNT };
const NEW_MESSAGE: Layout = Layout { is_message: true, ..NEW };

/// The layout of `kind`.
pub(super) fn of(kind: &str) -> &'static Layout {
    match LAYOUTS.iter().find(|(name, _)| *name == kind) {
        Some((_, layout)) => layout,
        None if kind.ends_with("message") || kind.ends_with("post") => &NEW_MESSAGE,
        None => &NEW,
    }
}

/// The names of all kinds.
pub(super) const fn kinds() -> [&'static str; LAYOUTS.len()] {
    let mut names = [""; LAYOUTS.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = LAYOUTS[index].0;
        index += 1;
    }
    names
}

/// What a message may carry besides text, the more specific before what accompanies it (an animation is a document too,
/// a venue has a location, a game an animation).
pub(super) const MEDIA: [&str; 19] = [
    "game",
    "animation",
    "live_photo",
    "audio",
    "document",
    "paid_media",
    "photo",
    "sticker",
    "story",
    "video",
    "video_note",
    "voice",
    "contact",
    "dice",
    "poll",
    "venue",
    "location",
    "checklist",
    "rich_message",
];
