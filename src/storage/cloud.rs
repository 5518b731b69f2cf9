//! Cloud object stores by URL, with credentials from the variables their own tools use.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use url::Url;

use crate::error::{Error, Result};

#[cfg(not(feature = "cloud"))]
pub(super) fn open(url: &Url) -> Result<(Arc<dyn ObjectStore>, Path)> {
    Err(Error::configuration(format!("{url}: this binary was built for local folders; build it with --features cloud")))
}

/// The store of a URL and the path in it. Its client never retries: who calls it does, and knows what may be repeated.
///
/// # Errors
/// A configuration error when the scheme is not known or credentials do not fit.
#[cfg(feature = "cloud")]
pub(super) fn open(url: &Url) -> Result<(Arc<dyn ObjectStore>, Path)> {
    open_with(url, object_store::aws::AmazonS3Builder::from_env())
}

/// As [`open`], with an S3 client that does not come from the environment: for tests of what lies below it.
///
/// # Errors
/// As [`open`].
#[cfg(feature = "cloud")]
pub(super) fn open_with(url: &Url, amazon: object_store::aws::AmazonS3Builder) -> Result<(Arc<dyn ObjectStore>, Path)> {
    use object_store::aws::{AmazonS3ConfigKey, S3CopyIfNotExists};
    use object_store::azure::MicrosoftAzureBuilder;
    use object_store::gcp::GoogleCloudStorageBuilder;
    use object_store::{ObjectStoreScheme, RetryConfig};

    use crate::error::{Context, ErrorKind};

    let wrong = format!("cannot open {url}; write a folder, s3://bucket/prefix, az://container/prefix or gs://…");
    let (scheme, path) = ObjectStoreScheme::parse(url).map_err(|_| Error::configuration(wrong.clone()))?;
    let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let text = url.as_str();
    let store: Arc<dyn ObjectStore> = match scheme {
        ObjectStoreScheme::AmazonS3 => {
            // Amazon's own way to a copy that replaces nothing; who has another store says so in the environment.
            let amazon = match amazon.get_config_value(&AmazonS3ConfigKey::CopyIfNotExists) {
                Some(_) => amazon,
                None => amazon.with_copy_if_not_exists(S3CopyIfNotExists::Multipart),
            };
            let builder = amazon.with_url(text).with_retry(retry);
            Arc::new(builder.build().context(ErrorKind::Configuration, wrong)?)
        }
        ObjectStoreScheme::MicrosoftAzure => {
            let builder = MicrosoftAzureBuilder::from_env().with_url(text).with_retry(retry);
            Arc::new(builder.build().context(ErrorKind::Configuration, wrong)?)
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            let builder = GoogleCloudStorageBuilder::from_env().with_url(text).with_retry(retry);
            Arc::new(builder.build().context(ErrorKind::Configuration, wrong)?)
        }
        _ => return Err(Error::configuration(wrong)),
    };
    Ok((store, path))
}
