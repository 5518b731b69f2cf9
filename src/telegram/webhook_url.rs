//! Where Telegram is told to deliver: checked here, since Telegram refuses some of it in few words and the rest never
//! arrives.

use std::net::IpAddr;

use url::{Host, Url};

use crate::error::{Error, Result};

/// The ports that Telegram delivers to (<https://core.telegram.org/bots/api#setwebhook>).
const PORTS: [u16; 4] = [443, 80, 88, 8_443];

/// The URL to deliver to, for a host or URL as a person gives it. The first of `paths` is appended, unless one of them is
/// there already. Telegram's own servers, which are `is_public`, deliver only to public hosts over HTTPS.
///
/// # Errors
/// Configuration when nothing could be delivered there, with the reason.
pub fn webhook_url(given: &str, paths: &[String], is_public: bool) -> Result<String> {
    let refused = |reason: &str| Err(Error::configuration(format!("Telegram cannot deliver to `{given}`: {reason}")));
    let text = if given.contains("://") { given.to_owned() } else { format!("https://{given}") };
    let Ok(mut url) = Url::parse(&text) else {
        return refused("it is neither a host nor a URL; write it like bot.example.com");
    };
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return refused("leave out user, password, query and fragment; the webhook's secret is sent apart");
    }
    let is_https = url.scheme() == "https";
    if !is_https && (is_public || url.scheme() != "http") {
        return refused("it delivers over HTTPS alone; put a proxy with a certificate in front, and give its URL");
    }
    let Some(host) = url.host() else { return refused("it has no host; write it like bot.example.com") };
    if is_public && is_private(&host) {
        return refused("that host is not on the Internet; without a public one, `lakegram poll` needs no webhook");
    }
    if is_public && url.port_or_known_default().is_none_or(|port| !PORTS.contains(&port)) {
        return refused("it delivers to the ports 443, 80, 88 and 8443 alone");
    }
    let path = url.path().trim_end_matches('/').to_owned();
    let is_there = paths.iter().any(|wanted| path.ends_with(wanted.trim_end_matches('/')) && wanted.len() > 1);
    let first = paths.first().map(String::as_str).unwrap_or_default();
    url.set_path(&if is_there { path } else { format!("{path}{first}") });
    Ok(url.into())
}

/// Whether a host can only be reached from the same machine or network.
fn is_private(host: &Host<&str>) -> bool {
    let is_private = |address: IpAddr| match address {
        IpAddr::V4(address) => {
            address.is_loopback() || address.is_private() || address.is_link_local() || address.is_unspecified()
        }
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.is_unique_local()
                || address.is_unicast_link_local()
                || address.is_unspecified()
        }
    };
    match host {
        Host::Ipv4(address) => is_private((*address).into()),
        Host::Ipv6(address) => is_private((*address).into()),
        Host::Domain(name) => {
            let name = name.trim_end_matches('.');
            !name.contains('.') || [".localhost", ".local", ".internal"].iter().any(|suffix| name.ends_with(suffix))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths() -> Vec<String> {
        vec!["/telegram-webhook".to_owned(), "/hook".to_owned()]
    }

    #[test]
    fn a_host_or_a_url_becomes_the_whole_url_with_one_path() {
        for (given, expected) in [
            ("bot.example.com", "https://bot.example.com/telegram-webhook"),
            ("https://bot.example.com/", "https://bot.example.com/telegram-webhook"),
            ("https://bot.example.com/telegram-webhook", "https://bot.example.com/telegram-webhook"),
            ("https://bot.example.com/telegram-webhook/", "https://bot.example.com/telegram-webhook"),
            ("https://bot.example.com/hook", "https://bot.example.com/hook"),
            ("https://example.com/lakegram", "https://example.com/lakegram/telegram-webhook"),
            ("example.com/lakegram/telegram-webhook", "https://example.com/lakegram/telegram-webhook"),
            ("bot.example.com:8443", "https://bot.example.com:8443/telegram-webhook"),
            ("93.184.216.34", "https://93.184.216.34/telegram-webhook"),
            ("bücher.example", "https://xn--bcher-kva.example/telegram-webhook"),
        ] {
            assert_eq!(webhook_url(given, &paths(), true).unwrap(), expected);
        }
    }

    #[test]
    fn where_nothing_arrives_is_refused_with_the_reason() {
        for (given, reason) in [
            ("http://bot.example.com", "HTTPS"),
            ("ftp://bot.example.com", "HTTPS"),
            ("localhost", "not on the Internet"),
            ("https://localhost:8443", "not on the Internet"),
            ("127.0.0.1", "not on the Internet"),
            ("10.1.2.3", "not on the Internet"),
            ("[::1]", "not on the Internet"),
            ("printer.local", "not on the Internet"),
            ("bot.example.com:8080", "ports"),
            ("https://me:key@bot.example.com", "leave out"),
            ("https://bot.example.com/?a=b", "leave out"),
            ("", "neither a host nor a URL"),
            ("a b", "neither a host nor a URL"),
        ] {
            let error = webhook_url(given, &paths(), true).unwrap_err().to_string();
            assert!(error.contains(reason), "{given}: {error}");
        }
    }

    #[test]
    fn a_bot_api_server_of_one_s_own_delivers_anywhere() {
        let url = webhook_url("http://127.0.0.1:8080", &paths(), false).unwrap();
        assert_eq!(url, "http://127.0.0.1:8080/telegram-webhook");
    }
}
