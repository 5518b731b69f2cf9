//! Cloud object stores by URL, with credentials from the variables of their own tools.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use url::Url;

use crate::error::{Error, Result};

#[cfg(not(feature = "cloud"))]
pub(super) fn open(_url: &Url) -> Result<(Arc<dyn ObjectStore>, Path)> {
    Err(Error::configuration(format!("this binary was built for local folders; build it with --features cloud")))
}

/// The store of a URL and the path in it. Its client never retries: the caller does, and knows what may be repeated.
///
/// # Errors
/// A configuration error when the scheme is unknown or the credentials do not match.
#[cfg(feature = "cloud")]
pub(super) fn open(url: &Url) -> Result<(Arc<dyn ObjectStore>, Path)> {
    open_with(url, object_store::aws::AmazonS3Builder::from_env())
}

/// Like [`open`], with an S3 client that does not come from the environment: for tests of what is below it.
///
/// # Errors
/// As [`open`].
#[cfg(feature = "cloud")]
pub(super) fn open_with(url: &Url, amazon: object_store::aws::AmazonS3Builder) -> Result<(Arc<dyn ObjectStore>, Path)> {
    use object_store::aws::{AmazonS3ConfigKey, S3CopyIfNotExists};
    use object_store::azure::MicrosoftAzureBuilder;
    use object_store::gcp::GoogleCloudStorageBuilder;
    use object_store::{ObjectStoreScheme, RetryConfig};

    use super::origin;
    use crate::error::{Context, ErrorKind};

    let place = origin(url);
    let wrong = format!("cannot open {place}; write a folder, s3://bucket/prefix, az://container/prefix or gs://…");
    let (scheme, path) = ObjectStoreScheme::parse(url).map_err(|_| Error::configuration(wrong.clone()))?;
    let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let text = url.as_str();
    let store: Arc<dyn ObjectStore> = match scheme {
        ObjectStoreScheme::AmazonS3 => {
            // Amazon's way of copying without replacing; for other stores the environment can say so.
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
