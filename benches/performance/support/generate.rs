//! Foreign files to load: Telegram updates, and events in the shape of GH Archive.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use super::Result;

const FILES: usize = 16;

/// Numbers that look thrown and are the same in every run.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or(0) % limit
    }

    fn words(&mut self, most: usize) -> String {
        const WORDS: [&str; 19] = [
            "the",
            "quick",
            "brown",
            "fox",
            "how",
            "late",
            "is",
            "it",
            "wie",
            "geht",
            "es",
            "dir",
            "привет",
            "как",
            "дела",
            "спасибо",
            "meeting",
            "order",
            "release",
        ];
        let words: Vec<&str> = (0..3 + self.below(most)).map(|_| WORDS[self.below(WORDS.len())]).collect();
        words.join(" ")
    }

    fn sha(&mut self) -> String {
        (0..5).map(|_| format!("{:08x}", self.below(1 << 31))).collect()
    }
}

/// Updates of several kinds and scripts, in files of one size; returns how many.
pub(crate) fn telegram_updates(landing: &Path, bytes: usize) -> Result<usize> {
    let mut dice = Dice::new();
    in_files(landing, bytes, |number| telegram_update(&mut dice, number))
}

/// One update of Telegram.
fn telegram_update(dice: &mut Dice, number: usize) -> String {
    let user = 100_000_000 + dice.below(50_000);
    let person =
        format!(r#"{{"id":{user},"is_bot":false,"first_name":"Zoë","username":"user{user}","language_code":"en"}}"#);
    let chat = format!(r#"{{"id":{user},"first_name":"Zoë","username":"user{user}","type":"private"}}"#);
    let more = match dice.below(20) {
        0 => format!(
            r#","reply_to_message":{{"message_id":{number},"from":{person},"chat":{chat},"date":1760000000,"text":"before"}}"#
        ),
        1 | 2 => format!(
            r#","photo":[{{"file_id":"AgACAgIAAxkBAAI{number:08}","file_unique_id":"AQAD{number:08}","file_size":{},"width":320,"height":240}}]"#,
            dice.below(90_000)
        ),
        3 => r#","entities":[{"offset":0,"length":4,"type":"bold"}]"#.to_owned(),
        _ => String::new(),
    };
    let message = format!(
        r#"{{"message_id":{number},"from":{person},"chat":{chat},"date":{},"text":"{}"{more}}}"#,
        1_760_000_000 + number / 10,
        dice.words(38)
    );
    match dice.below(20) {
        0 => format!(
            r#"{{"update_id":{},"callback_query":{{"id":"{number}","from":{person},"message":{message},"chat_instance":"{user}","data":"CONNECT"}}}}"#,
            700_000_000 + number
        ),
        _ => format!(r#"{{"update_id":{},"message":{message}}}"#, 700_000_000 + number),
    }
}

/// Public events of GitHub as GH Archive keeps them, pull requests with their two repositories among them; returns how
/// many.
pub(crate) fn github_events(landing: &Path, bytes: usize) -> Result<usize> {
    let mut dice = Dice::new();
    in_files(landing, bytes, |number| github_event(&mut dice, number))
}

fn github_event(dice: &mut Dice, number: usize) -> String {
    let (user, repository) = (dice.below(40_000), dice.below(80_000));
    let (kind, payload) = match dice.below(20) {
        0..=9 => ("PushEvent", push(dice, number)),
        10..=12 => ("PullRequestEvent", pull_request(dice, user, repository)),
        13 | 14 => ("IssueCommentEvent", comment(dice, user, repository)),
        15..=17 => ("WatchEvent", r#"{"action":"started"}"#.to_owned()),
        _ => {
            let text = dice.words(6);
            let payload = format!(
                r#"{{"ref":"feature-{number}","ref_type":"branch","master_branch":"main","description":"{text}","pusher_type":"user"}}"#
            );
            ("CreateEvent", payload)
        }
    };
    let organisation = match dice.below(3) {
        0 => format!(
            r#","org":{{"id":{repository},"login":"org{repository}","gravatar_id":"","url":"https://api.github.com/orgs/org{repository}","avatar_url":"https://avatars.githubusercontent.com/u/{repository}?"}}"#
        ),
        _ => String::new(),
    };
    format!(
        r#"{{"id":"{}","type":"{kind}","actor":{{"id":{user},"login":"user{user}","display_login":"user{user}","gravatar_id":"","url":"https://api.github.com/users/user{user}","avatar_url":"https://avatars.githubusercontent.com/u/{user}?"}},"repo":{{"id":{repository},"name":"org{repository}/project","url":"https://api.github.com/repos/org{repository}/project"}},"payload":{payload},"public":true,"created_at":"2026-01-{:02}T{:02}:{:02}:{:02}Z"{organisation}}}"#,
        40_000_000_000 + number,
        1 + number / 4_000_000 % 28,
        number / 180_000 % 24,
        number / 3_000 % 60,
        number / 50 % 60
    )
}

fn push(dice: &mut Dice, number: usize) -> String {
    let commits: Vec<String> = (0..1 + dice.below(4))
        .map(|_| {
            let (sha, text, user) = (dice.sha(), dice.words(12), dice.below(40_000));
            format!(
                r#"{{"sha":"{sha}","author":{{"email":"user{user}@example.org","name":"User {user}"}},"message":"{text}\n\nSigned-off-by: User {user}","distinct":true,"url":"https://api.github.com/repos/x/commits/{sha}"}}"#
            )
        })
        .collect();
    format!(
        r#"{{"push_id":{number},"size":{},"distinct_size":1,"ref":"refs/heads/main","head":"{}","before":"{}","commits":[{}]}}"#,
        commits.len(),
        dice.sha(),
        dice.sha(),
        commits.join(",")
    )
}

fn person(user: usize) -> String {
    format!(
        r#"{{"login":"user{user}","id":{user},"node_id":"MDQ6VXNlcnt{user}","avatar_url":"https://avatars.githubusercontent.com/u/{user}?v=4","gravatar_id":"","url":"https://api.github.com/users/user{user}","html_url":"https://github.com/user{user}","followers_url":"https://api.github.com/users/user{user}/followers","repos_url":"https://api.github.com/users/user{user}/repos","type":"User","site_admin":false}}"#
    )
}

fn comment(dice: &mut Dice, user: usize, repository: usize) -> String {
    let (number, title, body, owner) = (dice.below(9_000), dice.words(8), dice.words(60), person(user));
    format!(
        r#"{{"action":"created","issue":{{"url":"https://api.github.com/repos/org{repository}/project/issues/{number}","id":{number},"number":{number},"title":"{title}","user":{owner},"labels":[{{"id":1,"name":"bug","color":"d73a4a","default":true}}],"state":"open","locked":false,"assignee":null,"comments":{},"created_at":"2026-01-01T00:00:00Z","closed_at":null,"author_association":"NONE","body":"{title}"}},"comment":{{"id":{number},"user":{owner},"created_at":"2026-01-01T00:00:00Z","author_association":"MEMBER","body":"{body}"}}}}"#,
        dice.below(40)
    )
}

fn pull_request(dice: &mut Dice, user: usize, repository: usize) -> String {
    let mut side = |name: &str| {
        let (sha, owner, text) = (dice.sha(), person(repository), dice.words(10));
        format!(
            r#"{{"label":"org{repository}:{name}","ref":"{name}","sha":"{sha}","user":{owner},"repo":{{"id":{repository},"node_id":"R_kgDO{repository}","name":"project","full_name":"org{repository}/project","private":false,"owner":{owner},"html_url":"https://github.com/org{repository}/project","description":"{text}","fork":false,"created_at":"2020-01-01T00:00:00Z","size":{repository},"stargazers_count":17,"language":"Rust","has_issues":true,"forks_count":4,"license":{{"key":"mit","name":"MIT License","spdx_id":"MIT"}},"topics":["rust","delta"],"default_branch":"main"}}}}"#
        )
    };
    let (base, head) = (side("main"), side("fix"));
    let (number, title, body) = (dice.below(9_000), dice.words(8), dice.words(80));
    format!(
        r#"{{"action":"opened","number":{number},"pull_request":{{"url":"https://api.github.com/repos/org{repository}/project/pulls/{number}","id":{number},"number":{number},"state":"open","locked":false,"title":"{title}","user":{},"body":"{body}","created_at":"2026-01-01T00:00:00Z","closed_at":null,"merged_at":null,"assignees":[],"requested_reviewers":[],"labels":[],"draft":false,"head":{head},"base":{base},"author_association":"CONTRIBUTOR","auto_merge":null,"merged":false,"comments":{},"commits":1,"additions":{},"deletions":{},"changed_files":3}}}}"#,
        person(user),
        dice.below(9),
        dice.below(900),
        dice.below(900)
    )
}

/// A file for each of these lines, a thousand in a folder; returns how many bytes they have.
pub(crate) fn small_files(landing: &Path, count: usize) -> Result<u64> {
    let (mut dice, mut bytes) = (Dice::new(), 0);
    for number in 0..count {
        let folder = landing.join(format!("{:04}", number / 1_000));
        if number % 1_000 == 0 {
            fs::create_dir_all(&folder)?;
        }
        let update = telegram_update(&mut dice, number);
        bytes += update.len() as u64;
        fs::write(folder.join(format!("telegram_{number:07}.json")), update)?;
    }
    Ok(bytes)
}

fn in_files(landing: &Path, bytes: usize, mut line: impl FnMut(usize) -> String) -> Result<usize> {
    fs::create_dir_all(landing)?;
    let mut number = 0;
    for file in 0..FILES {
        let mut writer = BufWriter::new(File::create(landing.join(format!("part-{file:02}.jsonl")))?);
        let mut written = 0;
        while written < bytes / FILES {
            let line = line(number);
            writeln!(writer, "{line}")?;
            written += line.len() + 1;
            number += 1;
        }
        writer.flush()?;
    }
    Ok(number)
}
