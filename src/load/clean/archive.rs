//! Where the files of a source are moved to: another folder of the same store, keeping their paths below the source.

use std::path::{Path as FilePath, PathBuf};

use object_store::path::Path;
use url::Url;

use crate::clock::Clock;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::pipeline::clean::is_own;
use crate::storage::{PutNew, Storage, origin};

/// The folders that an archive must not overlap with, named as in a pipeline file.
#[derive(Clone, Copy, Debug)]
pub(in crate::load) struct Sites<'a> {
    /// The store below `LAKEGRAM_DATA`.
    pub(in crate::load) data: &'a Storage,
    /// The source as the pipeline file names it.
    pub(in crate::load) source: &'a str,
    /// Its folder in its own storage.
    pub(in crate::load) folder: &'a Path,
    /// Tables and other folders that must stay separate.
    pub(in crate::load) others: &'a [&'a str],
}

/// The folder that files are moved to.
#[derive(Clone, Debug)]
pub(in crate::load) struct Archive {
    /// A storage that reaches both folders, since an object can only be copied within one.
    storage: Storage,
    /// The source in that storage.
    from: Path,
    /// The folder in that storage.
    to: Path,
    /// The source in its own storage.
    folder: Path,
}

impl Archive {
    /// Opens the folder `to`.
    ///
    /// # Errors
    /// Configuration when it overlaps with the others, or is in another store than the source.
    pub(in crate::load) fn open(sites: Sites<'_>, to: &str) -> Result<Self> {
        let wrong = |problem: &str| Error::configuration(format!("clean_source.to = \"{to}\": {problem}"));
        let (source, there) = (place(sites.data, sites.source)?, place(sites.data, to)?);
        for other in sites.others.iter().chain([&sites.source]) {
            let place = place(sites.data, other)?;
            if is_within(&there, &place) || is_within(&place, &there) {
                return Err(wrong(&format!("it overlaps with \"{other}\"; use separate folders")));
            }
        }
        let folder = sites.folder.clone();
        if !is_own(sites.source) && !is_own(to) {
            let parsed = |path| Path::parse(path).context(ErrorKind::Configuration, format!("folder {path}"));
            return Ok(Self { storage: sites.data.clone(), from: parsed(sites.source)?, to: parsed(to)?, folder });
        }
        if origin(&source) != origin(&there) {
            return Err(wrong(
                "files can only be moved within one store; use a folder in the same bucket or on the same machine",
            ));
        }
        let (from, to) = (parts(&source), parts(&there));
        // Do not open the root of the machine if a folder below it will do.
        let common = match source.scheme() {
            "file" => from.iter().zip(&to).take_while(|(one, other)| one == other).count(),
            _ => 0,
        };
        let in_root = |parts: &[&str]| {
            let below = parts.get(common..).unwrap_or_default().join("/");
            Path::from_url_path(below).context(ErrorKind::Configuration, "clean_source.to")
        };
        let mut root = source.clone();
        root.set_path(&format!("/{}", from.get(..common).unwrap_or_default().join("/")));
        let storage = Storage::open_foreign(root.as_str()).map_err(|error| error.during("clean_source.to"))?;
        Ok(Self { storage: storage.bounded(&Clock::system()), from: in_root(&from)?, to: in_root(&to)?, folder })
    }

    /// Copies a file of the source here, unless another file is already at its destination.
    ///
    /// # Errors
    /// As [`Storage::copy_new`].
    pub(super) async fn take(&self, path: &Path) -> Result<PutNew> {
        self.storage.copy_new(&self.below(&self.from, path), &self.below(&self.to, path)).await
    }

    /// Whether another file is at the destination of this one.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn is_taken(&self, path: &Path) -> Result<bool> {
        let is_same = self.storage.is_same(&self.below(&self.from, path), &self.below(&self.to, path)).await?;
        Ok(is_same == Some(false))
    }

    /// The local path of a file.
    pub(super) fn local_file(&self, path: &Path) -> Option<PathBuf> {
        Some(self.storage.local_root()?.join(self.below(&self.to, path).as_ref()))
    }

    fn below(&self, folder: &Path, path: &Path) -> Path {
        folder.parts().chain(path.prefix_match(&self.folder).into_iter().flatten()).collect()
    }
}

/// Where a folder really is, with local links resolved.
fn place(data: &Storage, path: &str) -> Result<Url> {
    let wrong = || Error::configuration(format!("\"{path}\" is not a folder"));
    let local = |folder: &FilePath| Url::from_directory_path(resolved(folder)).map_err(|()| wrong());
    if path.starts_with('/') {
        return local(FilePath::new(path));
    }
    if is_own(path) {
        let url = Url::parse(path).context(ErrorKind::Configuration, format!("\"{path}\""))?;
        return match url.to_file_path() {
            Ok(folder) if url.scheme() == "file" => local(&folder),
            _ => Ok(url),
        };
    }
    match data.local_root() {
        Some(root) => local(&root.join(path)),
        None => {
            let mut url = data.url().clone();
            url.path_segments_mut().map_err(|()| wrong())?.pop_if_empty().extend(path.split('/'));
            Ok(url)
        }
    }
}

/// The folder with links resolved, as far as it exists.
fn resolved(folder: &FilePath) -> PathBuf {
    for there in folder.ancestors() {
        if let (Ok(real), Ok(rest)) = (there.canonicalize(), folder.strip_prefix(there)) {
            return real.join(rest);
        }
    }
    folder.to_owned()
}

fn parts(url: &Url) -> Vec<&str> {
    url.path().split('/').filter(|part| !part.is_empty()).collect()
}

fn is_within(inner: &Url, outer: &Url) -> bool {
    origin(inner) == origin(outer) && parts(inner).starts_with(&parts(outer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(source: &str, to: &str) -> Result<Archive> {
        let (data, folder) = (Storage::memory(), Path::default());
        Archive::open(Sites { data: &data, source, folder: &folder, others: &["bronze/t"] }, to)
    }

    #[test]
    fn a_folder_of_the_same_bucket_is_reached_from_its_root() {
        let archive = open("s3://bucket/in/here/", "s3://bucket/in-archive").unwrap();
        assert_eq!(archive.storage.url().as_str(), "s3://bucket/");
        let path = Path::from("deep/a b.json");
        assert_eq!(archive.below(&archive.from, &path), Path::from("in/here/deep/a b.json"));
        assert_eq!(archive.below(&archive.to, &path), Path::from("in-archive/deep/a b.json"));
    }

    #[test]
    fn one_store_is_one_however_it_is_written() {
        open("s3://bucket/in", "s3a://bucket/in-archive").unwrap();
        open("s3://KEY:SECRET@bucket/in", "s3://bucket/in-archive").unwrap();
    }

    #[test]
    fn another_bucket_and_a_folder_that_is_not_apart_are_refused() {
        let said = |to: &str| open("s3://bucket/in", to).unwrap_err().to_string();
        assert!(said("s3://other/archive").contains("same bucket or on the same machine"));
        assert!(said("s3://bucket/in/done").contains("separate folders"));
        assert!(said("s3://bucket").contains("separate folders"));
        assert!(said("s3a://bucket/in/done").contains("separate folders"));
        assert!(said("/srv/archive").contains("same bucket or on the same machine"));
    }
}
