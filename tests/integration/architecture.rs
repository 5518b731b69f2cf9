//! The floors hold: a module uses only floors below its own.

use std::path::Path;

const FLOORS: [&[&str]; 12] = [
    &["clock", "error", "sabotage"],
    // On the ground floor as well; its constructors return our error.
    &["id"],
    &["settings", "telemetry", "retry", "shutdown", "admission", "hint", "panic", "health"],
    &["storage", "schema", "pipeline"],
    // To come: `route` beside the pipeline.
    &["table", "json", "llm", "telegram"],
    &["flow", "load"],
    &["stage"],
    &["receive", "console"],
    &["app", "audit"],
    &["standin"],
    &["demo"],
    &["command", "main", "lib", "laws", "tests"],
];

/// Folders of one module that do not know each other: the table, or the store, between them is the joint.
const SIBLINGS: [(&str, &[&str]); 2] = [("stage", &["silver", "reply"]), ("load", &["lanes", "files"])];

fn floor_of(module: &str) -> usize {
    FLOORS.iter().position(|floor| floor.contains(&module)).unwrap_or_else(|| panic!("{module} has no floor"))
}

fn sources(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// A file without its tests.
fn code_of(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default()
}

/// The modules that a file names with `crate::`, in `use` lines and in paths.
fn named(text: &str) -> Vec<String> {
    let module = |rest: &str| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    text.split("crate::").skip(1).map(module).collect()
}

#[test]
fn a_module_uses_only_floors_below_its_own() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 50, "the sources were not found");
    let mut broken = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&root).unwrap();
        let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = first.trim_end_matches(".rs");
        // Tests of the whole use all of it.
        if module == "tests" {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let folder = relative.components().nth(1).and_then(|part| part.as_os_str().to_str()).unwrap_or_default();
        for (parent, siblings) in SIBLINGS {
            for other in siblings.iter().filter(|other| **other != folder) {
                if parent == module
                    && siblings.contains(&folder)
                    && code_of(&text).contains(&format!("crate::{parent}::{other}"))
                {
                    broken.push(format!("{}: {folder} uses {other}", relative.display()));
                }
            }
        }
        for used in named(&text) {
            if used != module && floor_of(&used) >= floor_of(module) {
                broken.push(format!("{}: {module} uses {used}", relative.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_file_says_why_it_exists() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    for file in files {
        assert!(std::fs::read_to_string(&file).unwrap().starts_with("//!"), "{}", file.display());
    }
}
