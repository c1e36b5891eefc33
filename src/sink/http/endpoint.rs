//! Where requests go: a URL that is known to be one. Pure.
//!
//! What always holds: what stands behind a question mark, which may be a secret, is in no text.

use std::fmt;
use std::net::IpAddr;

use ureq::http::Uri;

/// Longer ones are taken by no usual server.
const MAX: usize = 8 << 10;

/// A URL with a host, `http://` or `https://`.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    uri: Uri,
    shown: String,
}

impl Endpoint {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it, and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        const WANTED: &str = "write one such as \"https://example.com/orders\"";
        if text.len() > MAX {
            return Err(format!("has {} bytes; write one of at most {MAX}", text.len()));
        }
        if let Some(odd) = text.chars().find(|c| !c.is_ascii_graphic()) {
            let hint = if odd.is_control() { "leave it out" } else { "write it percent-encoded" };
            return Err(format!("has '{}', which no URL may have as it is; {hint}", odd.escape_debug()));
        }
        if text.contains('#') {
            return Err("has a '#', which is never sent; leave out what stands from there on".to_owned());
        }
        let uri: Uri = text.parse().map_err(|error| format!("is no URL ({error}); {WANTED}"))?;
        let scheme = uri.scheme_str().unwrap_or_default();
        if !matches!(scheme, "http" | "https") {
            return Err(format!("does not begin with http:// or https://; {WANTED}"));
        }
        let Some(authority) = uri.authority().filter(|authority| !authority.host().is_empty()) else {
            return Err(format!("has no host; {WANTED}"));
        };
        if authority.as_str().contains('@') {
            return Err(
                "has a user or a password in it; leave that out, and write username and password_file".to_owned()
            );
        }
        let (host, port) = (authority.host(), authority.port_u16());
        if port == Some(0) || authority.as_str().len() > host.len() && port.is_none() {
            return Err(format!("has no valid port; ports go from 1 to 65535: {WANTED}"));
        }
        let hidden = if uri.query().is_some() { "?***" } else { "" };
        let shown = format!("{scheme}://{authority}{}{hidden}", uri.path());
        Ok(Self { uri, shown })
    }

    /// As the log shows it.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Whether it begins with `https://`.
    pub fn is_tls(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// The name or address of the host, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        self.uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    /// `host:port`
    pub(super) fn address(&self) -> String {
        let port = self.uri.port_u16().unwrap_or(if self.is_tls() { 443 } else { 80 });
        format!("{}:{port}", self.uri.host().unwrap_or_default())
    }

    /// Whether it is on this machine.
    pub fn is_local(&self) -> bool {
        self.host() == "localhost" || self.host().parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// What stands behind the question mark, and the values in it.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        let query = self.uri.query();
        let pairs = query.into_iter().flat_map(|query| query.split('&'));
        query.into_iter().chain(pairs.filter_map(|pair| Some(pair.split_once('=')?.1)))
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_its_query_is_hidden() {
        let url = Endpoint::parse("https://example.com/a/b?token=s3cret").unwrap();
        assert_eq!((url.shown(), url.is_tls()), ("https://example.com/a/b?***", true));
        assert_eq!((url.host(), url.address().as_str()), ("example.com", "example.com:443"));
        assert_eq!(format!("{url:?}"), "https://example.com/a/b?***");
        let url = Endpoint::parse("http://[::1]:8080").unwrap();
        assert_eq!((url.host(), url.address().as_str(), url.shown()), ("::1", "[::1]:8080", "http://[::1]:8080/"));
        assert!(url.is_local() && Endpoint::parse("http://127.0.0.1/").unwrap().is_local());
        assert!(!Endpoint::parse("http://example.com/").unwrap().is_local());
    }

    #[test]
    fn what_is_no_url_says_what_to_write() {
        for (text, words) in [
            ("", "is no URL"),
            ("/orders", "does not begin with http://"),
            ("example.com/orders", "is no URL"),
            ("ftp://example.com/", "does not begin with http://"),
            ("http:///x", "is no URL"),
            ("http://:80/x", "has no host"),
            ("http://u:s3cret@example.com/", "username and password_file"),
            ("http://example.com:0/", "has no valid port"),
            ("http://example.com:99999/", "port"),
            ("http://example.com:/", "has no valid port"),
            ("http://example.com/a b", "write it percent-encoded"),
            ("http://example.com/ü", "write it percent-encoded"),
            ("http://example.com/\r\nX: y", "leave it out"),
            ("http://example.com/#a", "has a '#'"),
        ] {
            let why = Endpoint::parse(text).unwrap_err();
            assert!(why.contains(words) && !why.contains("s3cret"), "{text}: {why}");
        }
        assert!(Endpoint::parse(&format!("http://h/{}", "a".repeat(MAX))).unwrap_err().contains("bytes"));
    }
}
