//! The architecture: floors, no circles, short files, and one file that forms txn ids.

mod source;

use self::source::{Source, circles, edges, sources};

const FLOORS: [&[&str]; 12] = [
    &["clock", "error", "redact", "sabotage"],
    // On the ground floor as well; its constructors return our error.
    &["id"],
    &["settings", "telemetry", "retry", "shutdown", "admission", "hint", "panic", "health", "connections"],
    &["storage", "schema", "pipeline"],
    // To come: `route` beside the pipeline.
    &["table", "json", "llm", "telegram"],
    &["flow", "load", "identity"],
    &["stage"],
    &["receive", "console"],
    &["app", "audit"],
    &["standin"],
    &["demo"],
    &["command", "main", "lib", "laws", "tests"],
];

/// Folders of one module that do not know each other: the table, or the store, between them is the joint.
const SIBLINGS: [(&str, &[&str]); 2] = [("stage", &["silver", "reply"]), ("load", &["lanes", "files"])];

/// Lines of a file without its tests.
const LONGEST_FILE: usize = 400;

/// Lines that look like txn ids but are not: the version of the program, and what a trace id is derived from.
const EXEMPT_FROM_TXN_IDS: [(&str, &str); 3] =
    [("table/open.rs", "engineInfo"), ("table/commit.rs", "engineInfo"), ("id.rs", "Sha256::digest")];

fn floor_of(module: &str) -> usize {
    FLOORS.iter().position(|floor| floor.contains(&module)).unwrap_or_else(|| panic!("{module} has no floor"))
}

/// The modules that a file names with `crate::`, in `use` lines and in paths.
fn named(text: &str) -> Vec<String> {
    let module = |rest: &str| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    text.split("crate::").skip(1).map(module).collect()
}

/// Lines that may contain the beginning of a txn id.
fn txn_ids(source: &Source) -> Vec<String> {
    let is_id = |line: &&str| {
        line.contains("\"lakegram/")
            && !EXEMPT_FROM_TXN_IDS.iter().any(|(path, part)| source.path == *path && line.contains(part))
    };
    source.code().lines().filter(is_id).map(|line| format!("{}: {}", source.path, line.trim())).collect()
}

#[test]
fn a_module_uses_only_floors_below_its_own() {
    let mut broken = Vec::new();
    // Tests of the whole crate use all of it.
    for source in sources().iter().filter(|source| source.top() != "tests") {
        let module = source.top();
        for used in named(&source.text) {
            if used != module && floor_of(&used) >= floor_of(module) {
                broken.push(format!("{}: {module} uses {used}", source.path));
            }
        }
        let Some(folder) = source.module.get(1) else { continue };
        for (parent, siblings) in SIBLINGS {
            for other in siblings.iter().filter(|other| *other != folder) {
                if parent == module
                    && siblings.contains(&folder.as_str())
                    && source.code().contains(&format!("crate::{parent}::{other}"))
                {
                    broken.push(format!("{}: {folder} uses {other}", source.path));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn files_do_not_use_each_other_in_a_circle() {
    let sources: Vec<Source> = sources().into_iter().filter(|source| !source.is_test()).collect();
    let found = circles(edges(&sources));
    assert!(found.is_empty(), "put what they share into a file of its own:\n{}", found.join("\n"));
}

#[test]
fn a_circle_is_found() {
    let planted = [
        ("a/mod.rs", "use self::one::One;"),
        ("a/one.rs", "use super::{Top, two::{self, Two}};"),
        ("a/two.rs", "fn two() { crate::a::three::three() }\nmod tests {\n    use super::super::one;"),
        ("a/three.rs", "use std::fmt; // use super::one;"),
    ];
    let sources = |more: &[(&str, &str)]| -> Vec<Source> {
        planted.iter().chain(more).map(|(path, text)| Source::new(path, text)).collect()
    };
    assert!(circles(edges(&sources(&[]))).is_empty());
    let circle = circles(edges(&sources(&[("a/three.rs", "use crate::{\n    x::Y,\n    a::one::One as Other,\n};")])));
    assert_eq!(circle, ["a::one uses a::two", "a::three uses a::one", "a::two uses a::three"]);
}

#[test]
fn files_are_short() {
    let lines = |source: &Source| source.code().lines().count();
    let sources = sources();
    let long = sources.iter().filter(|source| !source.is_test() && lines(source) > LONGEST_FILE);
    let long: Vec<String> = long.map(|source| format!("{}: {} lines", source.path, lines(source))).collect();
    assert!(long.is_empty(), "longer than {LONGEST_FILE} lines without tests; split by meaning:\n{}", long.join("\n"));
}

#[test]
fn nothing_is_excused_from_the_length_of_functions() {
    let excused = "allow(clippy::too_many";
    let sources = sources();
    let found: Vec<&str> =
        sources.iter().filter(|source| source.text.contains(excused)).map(|source| source.path.as_str()).collect();
    assert!(found.is_empty(), "clippy counts the lines and parameters of functions; split these: {found:?}");
    let manifest = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap();
    assert!(manifest.contains("too_many_lines = \"deny\"") && manifest.contains("too_many_arguments = \"deny\""));
    let limits = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/.clippy.toml")).unwrap();
    assert!(limits.contains("too-many-lines-threshold = 60") && limits.contains("too-many-arguments-threshold = 5"));
}

#[test]
fn only_one_file_forms_txn_ids() {
    let sources = sources();
    let others = sources.iter().filter(|source| !source.is_test() && source.path != "table/txn.rs");
    let found: Vec<String> = others.flat_map(txn_ids).collect();
    assert!(found.is_empty(), "use `table::txn`:\n{}", found.join("\n"));
    let planted = Source::new("stage/x.rs", "let id = format!(\"lakegram/{pipeline}/bronze\");");
    assert_eq!(txn_ids(&planted).len(), 1);
    assert!(sources.iter().any(|source| source.path == "table/txn.rs" && !txn_ids(source).is_empty()));
}

#[test]
fn every_file_says_why_it_exists() {
    for source in sources() {
        assert!(source.text.starts_with("//!"), "{}", source.path);
    }
}
