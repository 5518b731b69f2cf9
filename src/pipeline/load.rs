//! Reads pipeline files, with `--set` overrides, their prompts, and errors that name the line and the nearest key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use toml::Table;

use super::clean::is_own;
use super::files::{ColumnTypes, FilesPipeline, PayloadType};
use super::table_path::{TablePath, canonical, is_within};
use super::{Pipeline, ReceiveSettings};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::id::Name;

/// File name of the shipped pipeline.
const BUILT_IN_FILE: &str = "telegram.toml";
const BUILT_IN: &str = include_str!("../../pipelines/telegram.toml");
const BUILT_IN_PROMPT: (&str, &str) = ("prompts/support.md", include_str!("../../pipelines/prompts/support.md"));

/// A shorter intent lifetime leaves no time to connect.
const SHORTEST_INTENT_TTL: Duration = Duration::from_secs(1);

/// What a pipeline file says.
#[derive(Clone, Debug)]
pub enum PipelineFile {
    /// A bot and everything behind it.
    Bot(Box<Pipeline>),
    /// A plain loader of foreign files: it has a `[source]`.
    Files(Box<FilesPipeline>),
}

/// The named pipelines, or all in `folder` that are not examples; the built-in one if the folder has none. `overrides`
/// are `key.path=value` pairs for this run.
///
/// # Errors
/// A configuration error that names the file, the line and the fix.
pub fn load(folder: &Path, names: &[String], overrides: &[String]) -> Result<Vec<PipelineFile>> {
    load_with_others(folder, names, overrides).map(|(chosen, _)| chosen)
}

/// As [`load`], with the pipelines of the folder that were not chosen, examples among them.
///
/// # Errors
/// As [`load`].
pub fn load_with_others(
    folder: &Path,
    names: &[String],
    overrides: &[String],
) -> Result<(Vec<PipelineFile>, Vec<PipelineFile>)> {
    let files = pipeline_files(folder)?;
    let mut texts = Vec::new();
    if files.is_empty() {
        texts.push((BUILT_IN.to_owned(), PathBuf::from(BUILT_IN_FILE)));
    }
    for file in files {
        let text = std::fs::read_to_string(&file)
            .context(ErrorKind::Configuration, format!("cannot read the pipeline {}", file.display()))?;
        texts.push((text, file));
    }
    // Overrides are meant for the requested pipelines, and may not be keys of others.
    let plain = texts.iter().map(|(text, file)| parse(text, file, &[])).collect::<Result<Vec<_>>>()?;
    let named: Vec<Name> = choose(&plain, names)?.into_iter().cloned().collect();
    let chosen = texts.iter().zip(&plain).filter(|(_, pipeline)| named.contains(pipeline.name()));
    let chosen: Vec<_> = chosen.map(|((text, file), _)| parse(text, file, overrides)).collect::<Result<_>>()?;
    check_together(&chosen)?;
    Ok((chosen, plain.into_iter().filter(|pipeline| !named.contains(pipeline.name())).collect()))
}

impl PipelineFile {
    /// Its name.
    pub fn name(&self) -> &Name {
        match self {
            Self::Bot(pipeline) => &pipeline.name,
            Self::Files(pipeline) => &pipeline.name,
        }
    }

    fn is_example(&self) -> bool {
        match self {
            Self::Bot(pipeline) => pipeline.example,
            Self::Files(pipeline) => pipeline.example,
        }
    }

    /// Its tables.
    pub fn tables(&self) -> Vec<&TablePath> {
        match self {
            Self::Bot(pipeline) => tables(pipeline).to_vec(),
            Self::Files(pipeline) => vec![&pipeline.bronze.table],
        }
    }

    /// The folder that it loads, where that lies below `LAKEGRAM_DATA` and is named so.
    pub fn source(&self) -> Option<&str> {
        match self {
            Self::Files(pipeline) if !is_own(&pipeline.source.path) => Some(&pipeline.source.path),
            _ => None,
        }
    }

    fn paths(&self) -> &[String] {
        match self {
            Self::Bot(pipeline) => &pipeline.receive.paths,
            Self::Files(_) => &[],
        }
    }
}

/// The pipeline built into the binary.
///
/// # Errors
/// None, unless the shipped file is broken, which a test would catch.
pub fn built_in() -> Result<Pipeline> {
    parse_bot(BUILT_IN, Path::new(BUILT_IN_FILE), &[])
}

fn pipeline_files(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let context = || format!("cannot read the folder {}", folder.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).context(ErrorKind::Configuration, context())? {
        let path = entry.context(ErrorKind::Configuration, context())?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The pipeline in `text`. Errors name `file`, and prompts are looked up next to it.
///
/// # Errors
/// A configuration error with the line and the fix.
pub fn parse(text: &str, file: &Path, overrides: &[String]) -> Result<PipelineFile> {
    // A file that is not TOML at all is reported as a bot's file.
    if !toml::from_str::<Table>(text).is_ok_and(|table| table.contains_key("source")) {
        return Ok(PipelineFile::Bot(Box::new(parse_bot(text, file, overrides)?)));
    }
    let pipeline: FilesPipeline = read(text, file, overrides)?;
    check_files(&pipeline).map_err(|error| error.during(file.display()))?;
    Ok(PipelineFile::Files(Box::new(pipeline)))
}

fn read<T: DeserializeOwned>(text: &str, file: &Path, overrides: &[String]) -> Result<T> {
    let located =
        |error: toml::de::Error| Error::configuration(format!("{}: {}", file.display(), explain(&error, text)));
    if overrides.is_empty() {
        return toml::from_str(text).map_err(located);
    }
    let mut table: Table = toml::from_str(text).map_err(located)?;
    for pair in overrides {
        set(&mut table, pair)?;
    }
    let wrong = |error: toml::de::Error| Error::configuration(format!("--set: {}", explain(&error, text)));
    table.try_into().map_err(wrong)
}

/// Like [`parse`], for the file of a bot.
///
/// # Errors
/// As [`parse`].
pub fn parse_bot(text: &str, file: &Path, overrides: &[String]) -> Result<Pipeline> {
    let mut pipeline: Pipeline = read(text, file, overrides)?;
    check(&pipeline).map_err(|error| error.during(file.display()))?;
    if let Some(prompt) = &pipeline.silver.model.system {
        let prompt = read_prompt(file, prompt).map_err(|error| error.during(file.display()))?;
        pipeline.silver.model.system = Some(prompt);
    }
    Ok(pipeline)
}

/// One line of a TOML error: where, what, and the nearest known key.
fn explain(error: &toml::de::Error, text: &str) -> String {
    let place = error.span().map(|span| {
        let line = text[..span.start.min(text.len())].matches('\n').count() + 1;
        format!("line {line}: ")
    });
    let message = error.message().replace('\n', " ");
    let nearest = nearest_key(&message).map(|key| format!("; did you mean `{key}`?")).unwrap_or_default();
    format!("{}{message}{nearest}", place.unwrap_or_default())
}

fn nearest_key(message: &str) -> Option<String> {
    let mut quoted = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    let wrong = quoted.next()?;
    let scored = quoted.map(|key| (strsim::damerau_levenshtein(wrong, key), key));
    let (distance, key) = scored.min()?;
    (distance <= key.len().max(2) / 2).then(|| key.to_owned())
}

fn set(table: &mut Table, pair: &str) -> Result<()> {
    let wrong = || Error::configuration(format!("--set {pair}: write it like --set silver.concurrency=8"));
    let (path, value) = pair.split_once('=').ok_or_else(wrong)?;
    let mut keys: Vec<&str> = path.trim().split('.').collect();
    let last = keys.pop().filter(|key| !key.is_empty()).ok_or_else(wrong)?;
    let mut at = table;
    for key in keys {
        let inner = at.entry(key).or_insert_with(|| Table::new().into());
        at = inner.as_table_mut().ok_or_else(wrong)?;
    }
    // A bare word is text, as on any command line; anything else is parsed as TOML.
    let parsed: Option<Table> = toml::from_str(&format!("value = {value}")).ok();
    let parsed = parsed.and_then(|mut table| table.remove("value"));
    at.insert(last.to_owned(), parsed.unwrap_or_else(|| value.to_owned().into()));
    Ok(())
}

fn read_prompt(pipeline_file: &Path, prompt: &str) -> Result<String> {
    let path = pipeline_file.parent().unwrap_or(Path::new(".")).join(prompt);
    if path.is_file() {
        return std::fs::read_to_string(&path)
            .context(ErrorKind::Configuration, format!("cannot read the prompt {}", path.display()));
    }
    if prompt == BUILT_IN_PROMPT.0 {
        return Ok(BUILT_IN_PROMPT.1.to_owned());
    }
    Err(Error::configuration(format!(
        "silver.model.system: file {} does not exist; the path is relative to the pipeline file",
        path.display()
    )))
}

fn check(pipeline: &Pipeline) -> Result<()> {
    let fail = |text: String| Err(Error::configuration(text));
    if pipeline.version != 1 {
        return fail(format!("version = {} is not supported; this release supports version = 1", pipeline.version));
    }
    for path in &pipeline.receive.paths {
        if !path.starts_with('/') || path.contains(['{', '}', '?', '#']) {
            return fail(format!("receive.paths: `{path}` is not a path; write it like \"/telegram-webhook\""));
        }
    }
    if pipeline.receive.paths.is_empty() {
        return fail("receive.paths is empty; add at least one, like [\"/telegram-webhook\"]".to_owned());
    }
    if !(200..600).contains(&pipeline.receive.reject_with) {
        return fail(format!("receive.reject_with = {} is not a final HTTP status", pipeline.receive.reject_with));
    }
    let ReceiveSettings { max_body, max_in_flight, .. } = &pipeline.receive;
    if max_in_flight < max_body {
        return fail(format!(
            "receive.max_in_flight = {max_in_flight} is less than receive.max_body = {max_body}, so a large body \
             would never be accepted; use at least as much"
        ));
    }
    let positive = [
        ("bronze.max_files", pipeline.bronze.max_files),
        ("silver.concurrency", pipeline.silver.concurrency),
        ("silver.max_attempts", pipeline.silver.max_attempts as usize),
        ("silver.max_waiting", pipeline.silver.max_waiting),
        ("reply.concurrency", pipeline.reply.concurrency),
    ];
    if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
        return fail(format!("{key} = 0 would do nothing; use 1 or more"));
    }
    if pipeline.reply.intent_ttl < SHORTEST_INTENT_TTL {
        let (given, least) = (pipeline.reply.intent_ttl, SHORTEST_INTENT_TTL);
        return fail(format!("reply.intent_ttl = {given:?} leaves no time to connect; write \"{least:?}\" or more"));
    }
    pipeline.bronze.check_clean_source(&tables(pipeline).map(TablePath::as_str))
}

fn check_files(pipeline: &FilesPipeline) -> Result<()> {
    let fail = |text: String| Err(Error::configuration(text));
    if pipeline.version != 1 {
        return fail(format!("version = {} is not supported; this release supports version = 1", pipeline.version));
    }
    if pipeline.bronze.max_files == 0 {
        return fail("bronze.max_files = 0 would do nothing; use 1 or more".to_owned());
    }
    check_updates(pipeline)?;
    let (source, table) = (pipeline.source.path.as_str(), &pipeline.bronze.table);
    if !is_own(source) {
        if canonical(source).as_deref() != Some(source.trim_end_matches('/')) {
            return fail(format!(
                "source.path `{source}`: write a folder relative to LAKEGRAM_DATA without empty parts, `.` and `..`, or a \
                 URL or absolute folder"
            ));
        }
        let ours = ["intents", "_lakegram"].into_iter().find(|ours| is_within(source, ours));
        if let Some(other) = table.overlaps(source).then_some(table.as_str()).or(ours) {
            return fail(format!("source.path `{source}` and `{other}` overlap; use separate folders"));
        }
    }
    let clean = &pipeline.source.clean_source;
    if clean.is_on() && is_within(source, "raw") {
        return fail(format!(
            "source.clean_source: `{source}` is written by receivers; use bronze.clean_source in the bot's pipeline instead"
        ));
    }
    clean.check("source.clean_source", &pipeline.source.path, &[table.as_str()])
}

/// With a schema there is nothing to infer, and only updates have a bot.
fn check_updates(FilesPipeline { source, bronze, .. }: &FilesPipeline) -> Result<()> {
    let without_use = [
        ("bronze.types", bronze.types != ColumnTypes::Infer),
        ("bronze.schema_hints", !bronze.schema_hints.is_empty()),
        ("bronze.timestamps", bronze.timestamps),
        ("bronze.payload_type", bronze.payload_type != PayloadType::Text),
        ("source.partition_columns", source.partition_columns.as_ref().is_some_and(|names| !names.is_empty())),
    ];
    if let (Some(file), Some((key, _))) = (&bronze.schema, without_use.iter().find(|(_, is_set)| *is_set)) {
        let text = format!("{key} has no effect when bronze.schema = \"{file}\" defines the columns; remove it");
        return Err(Error::configuration(text));
    }
    if bronze.payload_type != PayloadType::Text && !bronze.payload {
        return Err(Error::configuration("bronze.payload_type requires bronze.payload = true"));
    }
    if bronze.schema.is_none() && bronze.bot_id.is_some() {
        let text = "bronze.bot_id only applies to Telegram updates; add bronze.schema = \"telegram_messages.json\"";
        return Err(Error::configuration(text));
    }
    Ok(())
}

fn tables(pipeline: &Pipeline) -> [&TablePath; 3] {
    [&pipeline.bronze.table, &pipeline.silver.table, &pipeline.reply.table]
}

fn choose<'a>(pipelines: &'a [PipelineFile], names: &[String]) -> Result<Vec<&'a Name>> {
    if names.is_empty() {
        let chosen: Vec<_> =
            pipelines.iter().filter(|pipeline| !pipeline.is_example()).map(PipelineFile::name).collect();
        if chosen.is_empty() {
            return Err(Error::configuration("every pipeline is marked example = true; name the one to use"));
        }
        return Ok(chosen);
    }
    let known: Vec<String> = pipelines.iter().map(|pipeline| pipeline.name().to_string()).collect();
    if let Some(missing) = names.iter().find(|name| !known.contains(name)) {
        return Err(Error::configuration(format!(
            "no pipeline is called `{missing}`; there are: {}",
            known.join(", ")
        )));
    }
    Ok(pipelines.iter().map(PipelineFile::name).filter(|name| names.contains(&name.to_string())).collect())
}

fn check_together(pipelines: &[PipelineFile]) -> Result<()> {
    let mut owners: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for pipeline in pipelines {
        let name = pipeline.name().as_str();
        let names = std::iter::once(("the name", name));
        let paths = pipeline.paths().iter().map(|path| ("the webhook path", path.as_str()));
        for (what, value) in names.chain(paths) {
            if let Some(owner) = owners.insert((what, value), name) {
                return Err(Error::configuration(format!(
                    "pipelines `{owner}` and `{name}` share {what} `{value}`; give each its own"
                )));
            }
        }
    }
    check_tables(pipelines)
}

/// No table may be, hold or lie in another one, nor in a folder that is loaded.
fn check_tables(pipelines: &[PipelineFile]) -> Result<()> {
    let tables = |pipeline: &'_ PipelineFile| -> Vec<(Name, TablePath)> {
        pipeline.tables().into_iter().map(|table| (pipeline.name().clone(), table.clone())).collect()
    };
    let mut seen: Vec<(Name, TablePath)> = Vec::new();
    for (name, table) in pipelines.iter().flat_map(tables) {
        if let Some((owner, other)) = seen.iter().find(|(_, other)| other.overlaps(&table)) {
            let text = match other.to_lowercase() == table.to_lowercase() {
                true if *owner == name => format!("pipeline `{name}` has the table `{table}` twice"),
                true => format!("pipelines `{owner}` and `{name}` share the table `{table}`"),
                false => {
                    format!("table `{table}` of pipeline `{name}` and table `{other}` of `{owner}` overlap")
                }
            };
            return Err(Error::configuration(format!("{text}; use separate folders")));
        }
        seen.push((name, table));
    }
    for pipeline in pipelines {
        let Some(source) = pipeline.source() else { continue };
        if let Some((owner, table)) = seen.iter().find(|(_, table)| table.overlaps(source)) {
            return Err(Error::configuration(format!(
                "source.path `{source}` of pipeline `{}` and table `{table}` of `{owner}` overlap; use \
                 separate folders",
                pipeline.name()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pipeline::Evolution;

    fn parsed(text: &str) -> Result<Pipeline> {
        parse_bot(text, Path::new("nowhere/p.toml"), &[])
    }

    #[test]
    fn the_shipped_pipeline_parses_with_its_prompt() {
        let pipeline = built_in().unwrap();
        assert_eq!(pipeline.name.as_str(), "telegram");
        assert_eq!(pipeline.silver.model.history.max_age, Duration::from_secs(3 * 3_600));
        assert!(pipeline.silver.model.system.unwrap().starts_with("You are"));
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_the_nearest_known_one() {
        let text = BUILT_IN.replace("concurrency = 32", "concurency = 32");
        let error = parsed(&text).unwrap_err().to_string();
        assert!(error.contains("line 22: unknown field `concurency`"), "{error}");
        assert!(error.ends_with("did you mean `concurrency`?"), "{error}");
    }

    #[test]
    fn a_key_can_be_set_for_one_run() {
        let set = ["silver.concurrency=8".to_owned(), "silver.model.name=llama".to_owned()];
        let pipeline = parse_bot(BUILT_IN, Path::new("p.toml"), &set).unwrap();
        assert_eq!((pipeline.silver.concurrency, pipeline.silver.model.name.as_str()), (8, "llama"));
        let error = parse(BUILT_IN, Path::new("p.toml"), &["silver.concurrenzy=8".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("did you mean `concurrency`?"), "{error}");
        assert!(parse(BUILT_IN, Path::new("p.toml"), &["nonsense".to_owned()]).is_err());
    }

    #[test]
    fn wrong_values_say_what_to_write() {
        for (from, to, expected) in [
            ("version = 1", "version = 2", "this release supports version = 1"),
            ("\"/telegram-webhook\"", "\"telegram-webhook\"", "is not a path"),
            ("timeout = \"60s\"", "timeout = \"60 parsecs\"", "is not a duration"),
            ("reject_with = 401", "max_in_flight = \"1MiB\"", "use at least as much"),
            ("concurrency = 32", "concurrency = 0", "would do nothing"),
            ("acknowledge = \"typing\"", "intent_ttl = \"0s\"", "write \"1s\" or more"),
            ("bronze/telegram_messages", "../elsewhere", "relative to LAKEGRAM_DATA"),
            ("prompts/support.md", "prompts/none.md", "does not exist"),
        ] {
            let error = parsed(&BUILT_IN.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(expected), "{to}: {error}");
        }
    }

    #[test]
    fn a_loader_of_updates_has_nothing_to_infer() {
        let load = |bronze: &str| {
            let text = format!("version = 1\nname = \"p\"\n[source]\npath = \"in\"\n[bronze]\ntable = \"b\"\n{bronze}");
            parse(&text, Path::new("p.toml"), &[])
        };
        let schema = "schema = \"telegram_messages.json\"\n";
        let PipelineFile::Files(pipeline) = load(&format!("{schema}bot_id = 7")).unwrap() else { panic!() };
        assert_eq!((pipeline.bronze.bot_id, pipeline.bronze.evolution()), (Some(7), Evolution::Rescue));
        let PipelineFile::Files(pipeline) = load("").unwrap() else { panic!() };
        assert_eq!(pipeline.bronze.evolution(), Evolution::AddColumns);
        for (with, wrong, expected) in [
            (schema, "types = \"text\"", "bronze.types has no effect"),
            (schema, "schema_hints = \"a int\"", "bronze.schema_hints has no effect"),
            (schema, "timestamps = true", "bronze.timestamps has no effect"),
            (schema, "payload_type = \"variant\"", "bronze.payload_type has no effect"),
            ("", "payload_type = \"variant\"", "bronze.payload = true"),
            ("", "bot_id = 7", "add bronze.schema = \"telegram_messages.json\""),
        ] {
            let error = load(&format!("{with}{wrong}")).unwrap_err().to_string();
            assert!(error.contains(expected), "{wrong}: {error}");
        }
        let folders = "version = 1\nname = \"p\"\nsource = { path = \"in\", partition_columns = [\"day\"] }\n\
            bronze = { table = \"b\", schema = \"telegram_messages.json\" }";
        let error = parse(folders, Path::new("p.toml"), &[]).unwrap_err().to_string();
        assert!(error.contains("source.partition_columns has no effect"), "{error}");
    }

    #[test]
    fn two_pipelines_may_not_share_a_table_or_a_path() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.toml"), BUILT_IN).unwrap();
        let other_text =
            |path: &str| BUILT_IN.replace("name = \"telegram\"", "name = \"other\"").replace("/telegram-webhook", path);
        std::fs::write(folder.path().join("b.toml"), other_text("/other")).unwrap();
        let error = load(folder.path(), &[], &[]).unwrap_err().to_string();
        assert!(error.contains("share the table `bronze/telegram_messages`"), "{error}");
        assert_eq!(load(folder.path(), &["other".to_owned()], &[]).unwrap().len(), 1);
        for (table, expected) in [
            ("bronze/telegram_messages/", "share the table `bronze/telegram_messages`"),
            ("./bronze//x/../telegram_messages", "share the table `bronze/telegram_messages`"),
            ("Bronze/Telegram_Messages", "share the table `Bronze/Telegram_Messages`"),
            ("bronze/telegram_messages/deep", "overlap"),
            ("bronze", "overlap"),
            ("silver/telegram_replies", "share the table `silver/telegram_replies`"),
        ] {
            let text = other_text("/other").replace("bronze/telegram_messages", table);
            // What is not under test has a place of its own.
            let text = if table.starts_with("silver") { text } else { text.replace("\"silver/", "\"silver2/") };
            std::fs::write(folder.path().join("b.toml"), text).unwrap();
            let error = load(folder.path(), &[], &[]).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("`other`") && error.contains("`telegram`"), "{error}");
        }
        let loader = "version = 1\nname = \"files\"\nsource = { path = \"bronze\" }\nbronze = { table = \"b\" }";
        std::fs::write(folder.path().join("b.toml"), loader).unwrap();
        let error = load(folder.path(), &[], &[]).unwrap_err().to_string();
        assert!(error.contains("source.path `bronze` of pipeline `files` and table"), "{error}");
        std::fs::write(folder.path().join("b.toml"), other_text("/other")).unwrap();
        let error = load(folder.path(), &["third".to_owned()], &[]).unwrap_err().to_string();
        assert!(error.contains("there are: telegram, other"), "{error}");
    }
}
