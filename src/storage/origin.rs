//! The store that a URL is in, however the URL is written: who asks whether two folders are in one store compares that.

use percent_encoding::percent_decode_str;
use url::Url;

/// The store of a URL: its scheme, host and port, and in Azure its container. Never credentials: neither a user and a
/// password nor the query is part of it.
pub fn origin(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    match url.scheme() {
        // What looks like a user is the container, if the host is that of an account.
        "az" | "abfs" | "abfss" if !url.username().is_empty() && host.contains('.') => {
            let container = percent_decode_str(url.username()).decode_utf8_lossy();
            // An account has one host for each of two protocols, and the same containers behind both.
            let account = host.to_ascii_lowercase().replacen(".blob.", ".dfs.", 1);
            format!("abfss://{container}@{account}{port}")
        }
        "az" | "adl" | "azure" | "abfs" | "abfss" => format!("az://{host}{port}"),
        "s3" | "s3a" => format!("s3://{host}{port}"),
        scheme => format!("{scheme}://{host}{port}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(url: &str) -> String {
        origin(&Url::parse(url).unwrap())
    }

    #[test]
    fn schemes_of_one_store_are_one() {
        for url in ["s3://bucket", "s3a://bucket/x", "s3://KEY:SECRET@bucket/x?token=SECRET#SECRET"] {
            assert_eq!(of(url), "s3://bucket");
        }
        for scheme in ["az", "adl", "azure", "abfs", "abfss"] {
            assert_eq!(of(&format!("{scheme}://container/x")), "az://container");
        }
        assert_eq!([of("file:///srv/in"), of("gs://bucket/in")], ["file://", "gs://bucket"]);
    }

    #[test]
    fn containers_of_one_account_are_as_different_as_buckets() {
        for url in [
            "abfss://data@account.dfs.core.windows.net/lake",
            "abfs://data:SECRET@Account.dfs.core.windows.net/lake?sig=SECRET",
            "az://data@account.blob.core.windows.net",
        ] {
            assert_eq!(of(url), "abfss://data@account.dfs.core.windows.net");
        }
        assert_eq!(of("abfss://in@account.dfs.core.windows.net/lake"), "abfss://in@account.dfs.core.windows.net");
    }

    proptest! {
        #[test]
        fn an_origin_is_the_store_and_never_its_credentials(
            stores in ["[a-z]{3}", "[a-z]{3}"],
            accounts in ["[ab]", "[ab]"],
            users in ["[A-Z]{8}(:[A-Z]{8})?", "[A-Z]{8}(:[A-Z]{8})?"],
            ports in [0_u16..3, 0_u16..3],
        ) {
            for schemes in [["abfs", "abfss"], ["abfss", "abfss"]] {
                let url = |at: usize| {
                    let (scheme, store, account) = (schemes[at], &stores[at], &accounts[at]);
                    of(&format!("{scheme}://{store}:SECRET@{account}.dfs.core.windows.net/x?SECRET"))
                };
                let is_same = stores[0] == stores[1] && accounts[0] == accounts[1];
                prop_assert_eq!(url(0) == url(1), is_same);
                prop_assert!(!url(0).contains("SECRET"));
            }
            for scheme in ["https", "s3", "az", "gs"] {
                let url = |user: &str, at: usize| {
                    let (store, port) = (&stores[at], 9_000 + ports[at]);
                    of(&format!("{scheme}://{user}@{store}:{port}/x"))
                };
                let same = url(&users[0], 0);
                prop_assert_eq!(&same, &url(&users[1], 0));
                prop_assert!(!users[0].split(':').any(|word| same.contains(word)), "{}", same);
                prop_assert_eq!(same == url(&users[0], 1), stores[0] == stores[1] && ports[0] == ports[1]);
            }
        }
    }
}
