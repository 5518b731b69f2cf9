//! The source as the architecture checks see it: files, modules, and which module names which.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A module, as its path from the crate root.
pub(super) type Module = Vec<String>;

/// A file below `src`.
pub(super) struct Source {
    /// Its path below `src`, with forward slashes.
    pub(super) path: String,
    pub(super) module: Module,
    pub(super) text: String,
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let mut module: Module = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        if module.last().is_some_and(|last| last == "mod") || module == ["lib"] {
            module.pop();
        }
        Self { path: path.to_owned(), module, text: text.to_owned() }
    }

    /// The first name of its module; of the root `lib`.
    pub(super) fn top(&self) -> &str {
        self.module.first().map_or("lib", String::as_str)
    }

    /// Whether all of it is there for tests only.
    pub(super) fn is_test(&self) -> bool {
        self.module.iter().any(|name| name == "tests" || name == "laws")
    }

    /// The file without the unit tests at its end.
    pub(super) fn code(&self) -> &str {
        match self.text.find("\nmod tests {") {
            Some(tests) => &self.text[..tests + 1],
            None => &self.text,
        }
    }
}

/// Every file below `src`.
pub(super) fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    assert!(files.len() > 50, "the sources were not found");
    let source = |file: PathBuf| {
        let path = file.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
        Source::new(&path, &std::fs::read_to_string(&file).unwrap())
    };
    files.into_iter().map(source).collect()
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Which module names which, unless one contains the other: a folder's `mod.rs` and its files are one. Both are
/// truncated where their paths part, so that all edges are between siblings.
pub(super) fn edges(sources: &[Source]) -> BTreeMap<Module, BTreeSet<Module>> {
    let modules: BTreeSet<&Module> = sources.iter().map(|source| &source.module).collect();
    let mut edges: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for source in sources {
        for named in paths(source.code()) {
            let Some(target) = resolve(&source.module, &named, &modules) else { continue };
            let common = source.module.iter().zip(&target).take_while(|(one, other)| one == other).count();
            if let (Some(from), Some(to)) = (source.module.get(..=common), target.get(..=common)) {
                edges.entry(from.to_vec()).or_default().insert(to.to_vec());
            }
        }
    }
    edges
}

/// What is left after repeatedly removing modules that nothing leads to or from: the circles.
pub(super) fn circles(mut edges: BTreeMap<Module, BTreeSet<Module>>) -> Vec<String> {
    loop {
        let targets: BTreeSet<Module> = edges.values().flatten().cloned().collect();
        let before = edges.values().map(BTreeSet::len).sum::<usize>();
        edges.retain(|from, _| targets.contains(from));
        let sources: BTreeSet<Module> = edges.keys().cloned().collect();
        edges.values_mut().for_each(|to| to.retain(|module| sources.contains(module)));
        edges.retain(|_, to| !to.is_empty());
        if edges.values().map(BTreeSet::len).sum::<usize>() == before {
            break;
        }
    }
    let line = |(from, to): (&Module, &BTreeSet<Module>)| {
        let to: Vec<String> = to.iter().map(|module| module.join("::")).collect();
        format!("{} uses {}", from.join("::"), to.join(", "))
    };
    edges.iter().map(line).collect()
}

/// The paths in `use` lines, and those in code that begin with `crate`, `self` or `super`.
fn paths(code: &str) -> Vec<Vec<String>> {
    let code: String =
        code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join(" ");
    let mut found = Vec::new();
    for statement in code.split(';') {
        if let Some((_, tree)) = statement.rsplit_once("use ") {
            expand(tree, &[], &mut found);
        }
    }
    let is_in_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let inline = code
        .split(|c| !is_in_name(c))
        .filter(|word| ["crate::", "self::", "super::"].iter().any(|root| word.starts_with(root)));
    found.extend(inline.map(|word| word.split("::").map(str::to_owned).collect()));
    found
}

/// `a::{b, c::{d, e}}` as `a::b`, `a::c::d` and `a::c::e`.
fn expand(tree: &str, before: &[String], found: &mut Vec<Vec<String>>) {
    let (mut depth, mut begin) = (0_i32, 0);
    for (at, c) in tree.char_indices().chain([(tree.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let branch = tree[begin..at].trim();
                begin = at + 1;
                let (names, rest) = branch.split_once('{').map_or((branch, None), |(names, rest)| (names, Some(rest)));
                let names = names.split("::").map(|name| name.split_whitespace().next().unwrap_or_default().to_owned());
                let path: Vec<String> = before.iter().cloned().chain(names.filter(|name| !name.is_empty())).collect();
                match rest.and_then(|rest| rest.rsplit_once('}')) {
                    Some((rest, _)) => expand(rest, &path, found),
                    None => found.push(path),
                }
            }
            _ => {}
        }
    }
}

/// The module that a path named in `within` leads to, as far as there are files; `None` when it leads out of the crate.
fn resolve(within: &Module, named: &[String], modules: &BTreeSet<&Module>) -> Option<Module> {
    let mut module = within.clone();
    let mut rest = named;
    match rest.first()?.as_str() {
        "crate" => {
            module.clear();
            rest = &rest[1..];
        }
        "self" => rest = &rest[1..],
        "super" => {
            while rest.first().is_some_and(|name| name == "super") {
                module.pop();
                rest = &rest[1..];
            }
        }
        child => {
            let below: Module = module.iter().cloned().chain([child.to_owned()]).collect();
            modules.get(&below)?;
        }
    }
    for name in rest {
        module.push(name.clone());
        if !modules.contains(&module) {
            module.pop();
            break;
        }
    }
    Some(module)
}
