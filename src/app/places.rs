//! What pipelines of one data root may not share, beyond what their files alone can tell: bots, and folders that are named in full.

use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};

use url::Url;

use super::App;
use crate::error::{Error, Result};
use crate::id::BotId;
use crate::pipeline::TablePath;
use crate::pipeline::clean::is_own;
use crate::pipeline::files::FilesPipeline;
use crate::storage::origin;

/// Where a folder is: on this machine or in a store, and the parts of its path.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    origin: String,
    parts: Vec<String>,
}

impl App {
    /// # Errors
    /// A configuration error when two pipelines have one bot: both would answer its messages.
    pub(super) fn check_bots(&self) -> Result<()> {
        let mut owners: BTreeMap<BotId, &str> = BTreeMap::new();
        for pipeline in &self.pipelines {
            // A missing token is reported where it is needed.
            let Ok(bot_id) = self.bot_id(pipeline) else { continue };
            let name = pipeline.name.as_str();
            if let Some(owner) = owners.insert(bot_id, name) {
                return Err(Error::configuration(format!(
                    "pipelines `{owner}` and `{name}` share the bot {bot_id}; give each a bot of its own (bot.token_env)"
                )));
            }
        }
        Ok(())
    }

    /// # Errors
    /// A configuration error when a folder that is loaded, however it is named, holds the data root, or shares a folder
    /// with what is written there.
    pub(super) fn check_sources(&self) -> Result<()> {
        let bots = self.pipelines.iter().flat_map(|bot| [&bot.bronze.table, &bot.silver.table, &bot.reply.table]);
        let tables: Vec<&TablePath> = bots.chain(self.loaders.iter().map(|loader| &loader.bronze.table)).collect();
        let root = Place::of(&self.settings.data);
        self.loaders.iter().filter(|loader| is_own(&loader.source.path)).try_for_each(|loader| {
            let source = Place::of(&loader.source.path);
            match (&root, source) {
                (Some(root), Some(source)) => check_source(loader, &source, root, &tables),
                _ => Ok(()),
            }
        })
    }
}

fn check_source(loader: &FilesPipeline, source: &Place, root: &Place, tables: &[&TablePath]) -> Result<()> {
    let fail = |what: &str| {
        let (name, path) = (&loader.name, &loader.source.path);
        Err(Error::configuration(format!("source.path `{path}` of pipeline `{name}` {what}; use a separate folder")))
    };
    if source.origin != root.origin {
        return Ok(());
    }
    if root.parts.starts_with(&source.parts) {
        return fail("holds LAKEGRAM_DATA");
    }
    let Some(below) = source.parts.strip_prefix(root.parts.as_slice()) else { return Ok(()) };
    let below = below.join("/");
    if let Some(table) = tables.iter().find(|table| table.overlaps(&below)) {
        return fail(&format!("and table `{table}` overlap"));
    }
    match below.split('/').next() {
        Some(ours @ ("intents" | "_lakegram")) => fail(&format!("lies in `{ours}/` of LAKEGRAM_DATA")),
        _ => Ok(()),
    }
}

impl Place {
    /// `None` for something that is not a folder and cannot be compared; opening it reports why.
    fn of(text: &str) -> Option<Self> {
        let url = match Url::parse(text).ok().filter(|_| text.contains("://")) {
            None => Url::from_directory_path(resolved(&std::path::absolute(text).ok()?)).ok()?,
            Some(url) if url.scheme() == "file" => {
                Url::from_directory_path(resolved(&url.to_file_path().ok()?)).ok()?
            }
            Some(url) => url,
        };
        let parts = url.path().split('/').filter(|part| !matches!(*part, "" | "."));
        Some(Self { origin: origin(&url), parts: parts.map(decoded).collect() })
    }
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// The folder without links and `..`, as far as it exists.
fn resolved(folder: &FilePath) -> PathBuf {
    for there in folder.ancestors() {
        if let (Ok(real), Ok(rest)) = (there.canonicalize(), folder.strip_prefix(there)) {
            return real.join(rest);
        }
    }
    folder.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(source: &str, data: &str) -> String {
        let text = format!(
            "version = 1\nname = \"files\"\nsource = {{ path = \"{source}\" }}\nbronze = {{ table = \"bronze/files\" }}"
        );
        let loader: FilesPipeline = toml::from_str(&text).unwrap();
        let (source, root) = (Place::of(source).unwrap(), Place::of(data).unwrap());
        check_source(&loader, &source, &root, &[&loader.bronze.table])
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    }

    #[test]
    fn a_source_that_holds_the_data_or_a_table_is_refused_however_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir_all(data.join("bronze")).unwrap();
        std::os::unix::fs::symlink(&data, folder.path().join("link")).unwrap();
        let (root, data) = (folder.path().display().to_string(), data.display().to_string());
        for source in [
            root.clone(),
            format!("{root}/"),
            format!("{root}//x/.."),
            format!("file://{data}"),
            format!("{root}/link"),
        ] {
            // What is not there cannot be resolved, and is compared as it is written.
            let expected = if source.ends_with("..") { "" } else { "holds LAKEGRAM_DATA" };
            assert!(said(&source, &data).contains(expected), "{source}: {}", said(&source, &data));
        }
        for source in
            [format!("{data}/bronze"), format!("{root}/link/bronze/files/deep"), format!("file://{data}/bronze/files")]
        {
            assert!(said(&source, &data).contains("table `bronze/files` overlap"), "{source}");
        }
        assert!(said(&format!("{data}/intents/x"), &data).contains("lies in `intents/`"));
        for source in [format!("{data}/in"), format!("{root}/in"), "s3://bucket/data".to_owned()] {
            assert_eq!(said(&source, &data), "", "{source}");
        }
        assert!(said("s3://bucket", "s3://bucket/data").contains("holds LAKEGRAM_DATA"));
        assert!(said("s3://bucket/data/bronze/files", "s3://bucket/data").contains("overlap"));
        assert_eq!(said("s3://other/data", "s3://bucket/data"), "");
        assert!(said("s3a://bucket", "s3://bucket/data").contains("holds LAKEGRAM_DATA"));
    }

    #[test]
    fn containers_of_one_account_are_as_different_as_buckets() {
        let data = "abfss://data@account.dfs.core.windows.net/lake";
        assert!(said("abfss://data@account.dfs.core.windows.net/", data).contains("holds LAKEGRAM_DATA"));
        assert!(said("abfs://data:secret@Account.dfs.core.windows.net/lake", data).contains("holds LAKEGRAM_DATA"));
        assert_eq!(said("abfss://incoming@account.dfs.core.windows.net/", data), "");
        assert_eq!(said("abfss://incoming@account.dfs.core.windows.net/lake", data), "");
    }
}
