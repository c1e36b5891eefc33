//! The keys of `type = "http"`.

use std::path::PathBuf;

use super::super::read::Reader;
use super::super::resolve::KAFKA_INT_MAX;
use super::super::security::{a_path, from_file};
use super::super::value::{self, Choice};
use crate::client::security::{Identity, Tls};
use crate::sink::http::{Auth, Body, Endpoint, Method, Settings, check_header, check_media_type, check_token};

/// The longest batch that a consumer hands over has fewer.
const RECORDS_MAX: u64 = 100_000;
/// A batch is built in memory, beside `memory.limit`.
const BYTES_MIN: u64 = 1 << 10;
const BYTES_MAX: u64 = 256 << 20;
const DAY_MS: u64 = 86_400_000;

impl Choice for Method {
    const ALL: &'static [(&'static str, Self)] = &[("POST", Self::Post), ("PUT", Self::Put)];
}

impl Choice for Body {
    const ALL: &'static [(&'static str, Self)] =
        &[("record", Self::Record), ("json", Self::Json), ("ndjson", Self::Ndjson)];
}

/// Reads them.
pub(super) fn read(sink: &mut Reader<'_, '_>, name: &str) -> Option<Settings> {
    let example = format!("\"https://example.com/{name}\"");
    let endpoint = sink.read(
        "url",
        |value| value::string(value).and_then(|text| Endpoint::parse(&text)),
        // What stands behind a question mark may be a secret.
        |endpoint| value::show_text(endpoint.shown()),
    );
    let endpoint = sink.required("url", endpoint, &example);
    let method = sink.choice("method");
    let body = sink.choice("body");
    let max_batch_records = sink.number("max_batch_records", 1..=RECORDS_MAX);
    let max_batch_bytes = sink.size("max_batch_bytes", BYTES_MIN..=BYTES_MAX);
    for key in ["max_batch_records", "max_batch_bytes"] {
        if body == Some(Body::Record) && sink.own(key).is_some() {
            sink.wrong(key, "does nothing with body = \"record\", which has one; write body = \"json\" or \"ndjson\", or leave it out".to_owned());
        }
        if body == Some(Body::Record) {
            sink.set_aside(key);
            sink.leave_out(key);
        }
    }
    let content_type = sink.text("content_type", check_media_type);
    let timeout = sink.millis("timeout_ms", 1..=KAFKA_INT_MAX);
    let retry_status =
        sink.read("retry_status", value::statuses, |list| format!("{:?}", list.iter().collect::<Vec<_>>()));
    let retry_after_max = sink.millis("retry_after_max_ms", 0..=DAY_MS);
    let headers = sink.secrets("headers", check_header);
    let auth = auth(sink, headers.as_deref().unwrap_or_default());
    let tls = tls(sink, endpoint.as_ref());
    let (endpoint, auth) = (endpoint?, auth?);
    if auth.is_some() && !endpoint.is_tls() && !endpoint.is_local() {
        let at = sink.place("url");
        let line = sink.context.lines.line(at);
        let path = sink.path().to_owned();
        sink.context.warnings.push(format!(
            "line {line}: {path}.url is no https:// url: the secret goes over the network as it is; use https"
        ));
    }
    let body: Body = body?;
    Some(Settings {
        endpoint,
        method: method?,
        body,
        max_batch_records: max_batch_records?,
        max_batch_bytes: max_batch_bytes?,
        content_type: content_type.unwrap_or_else(|| body.content_type().to_owned()),
        timeout: timeout?,
        retry_status: retry_status?,
        retry_after_max: retry_after_max?,
        headers: headers?,
        auth,
        tls: tls?,
    })
}

/// Of a sink without a type: each key that no other type has, has its type of value.
pub(super) fn any(sink: &mut Reader<'_, '_>) {
    let _ = sink.read("url", value::string, |_| String::new());
    let _ = sink.choice::<Method>("method");
    let _ = sink.choice::<Body>("body");
    let _ = sink.size::<usize>("max_batch_bytes", BYTES_MIN..=BYTES_MAX);
    let _ = sink.text("content_type", check_media_type);
    let _ = sink.read("retry_status", value::statuses, |_| String::new());
    let _ = sink.millis("retry_after_max_ms", 0..=DAY_MS);
    let _ = sink.secrets("headers", check_header);
    for key in ["bearer_token_file", "password_file", "ca_file", "client_cert_file", "client_key_file"] {
        let _ = sink.text(key, a_path);
    }
    let _ = sink.text("username", user_name);
}

/// `None`: it is wrong, which has been told.
#[expect(clippy::option_option, reason = "wrong, absent, there")]
fn auth(sink: &mut Reader<'_, '_>, headers: &[(String, crate::client::security::Secret)]) -> Option<Option<Auth>> {
    let bearer = sink.text("bearer_token_file", a_path).map(PathBuf::from);
    let username = sink.text("username", user_name);
    let password = sink.text("password_file", a_path).map(PathBuf::from);
    let mut good = true;
    let mut wrong = |sink: &mut Reader<'_, '_>, key, text: String| {
        sink.wrong(key, text);
        good = false;
    };
    let own = |sink: &Reader<'_, '_>, key| sink.own(key).is_some();
    for key in ["username", "password_file"] {
        if own(sink, key) && own(sink, "bearer_token_file") {
            wrong(sink, key, "stands beside bearer_token_file; leave one of them out".to_owned());
        }
    }
    for (one, other, example) in
        [("username", "password_file", "/etc/worker/http.password"), ("password_file", "username", "worker")]
    {
        if own(sink, one) && !own(sink, other) {
            wrong(sink, one, format!("stands without {other}; write {other} = \"{example}\" too"));
        }
    }
    for key in ["bearer_token_file", "username"] {
        if own(sink, key) && headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization")) {
            wrong(sink, key, "stands beside a header Authorization; leave one of them out".to_owned());
        }
    }
    if own(sink, "bearer_token_file") || own(sink, "username") {
        let unused = if own(sink, "username") { ["bearer_token_file"; 2] } else { ["username", "password_file"] };
        unused.into_iter().for_each(|key| sink.leave_out(key));
    }
    if let Some(path) = &bearer {
        match from_file(sink, "bearer_token_file", path, "token") {
            Ok(token) if sink.context.files.is_some() => {
                if let Err(why) = check_token(&token) {
                    wrong(
                        sink,
                        "bearer_token_file",
                        format!("is {}, whose content {why}", value::show_text(&path.display().to_string())),
                    );
                }
            }
            Ok(_) => {}
            Err(_) => good = false,
        }
    }
    if let Some(path) = &password
        && from_file(sink, "password_file", path, "password").is_err()
    {
        good = false;
    }
    let asked = ["bearer_token_file", "username", "password_file"].iter().any(|key| own(sink, key));
    let auth = match (bearer, username, password) {
        (Some(file), None, None) => Some(Auth::Bearer { file }),
        (None, Some(username), Some(file)) => Some(Auth::Basic { username, file }),
        (..) => None,
    };
    (good && asked == auth.is_some()).then_some(auth)
}

fn tls(sink: &mut Reader<'_, '_>, endpoint: Option<&Endpoint>) -> Option<Tls> {
    let ca = sink.text("ca_file", a_path).map(PathBuf::from);
    let certificate = sink.text("client_cert_file", a_path).map(PathBuf::from);
    let key = sink.text("client_key_file", a_path).map(PathBuf::from);
    let mut good = true;
    for (one, other) in [("client_cert_file", "client_key_file"), ("client_key_file", "client_cert_file")] {
        if sink.own(one).is_some() && sink.own(other).is_none() {
            sink.wrong(one, format!("stands without {other}; write {other} = \"/etc/worker/client.pem\" too"));
            good = false;
        }
    }
    let endpoint = endpoint?;
    for own in ["ca_file", "client_cert_file", "client_key_file"] {
        if !endpoint.is_tls() {
            if sink.own(own).is_some() {
                sink.wrong(own, "does nothing with an http:// url; write an https:// url, or leave it out".to_owned());
                good = false;
            }
            sink.leave_out(own);
        }
    }
    for (own, read) in
        [("ca_file", ca.is_some()), ("client_cert_file", certificate.is_some()), ("client_key_file", key.is_some())]
    {
        good &= sink.own(own).is_none() || read;
    }
    let identity = certificate.zip(key).map(|(certificate, key)| Identity { certificate, key, key_password: None });
    let tls = Tls { ca, identity, verify_hostname: true };
    (good && (!endpoint.is_tls() || examine(sink, &tls))).then_some(tls)
}

/// Whether the files can be used; told if not.
#[cfg(feature = "librdkafka")]
fn examine(sink: &mut Reader<'_, '_>, tls: &Tls) -> bool {
    let Some(files) = sink.context.files else { return true };
    if tls.ca.is_none() && tls.identity.is_none() {
        return true;
    }
    let read = |path: &std::path::Path| files.read(path).map(|file| file.bytes);
    match crate::wire::tls::examine(tls, &crate::sink::http::SERVER, &read) {
        Ok(()) => true,
        Err(wrong) => {
            sink.wrong(wrong.key, wrong.text);
            false
        }
    }
}

#[cfg(not(feature = "librdkafka"))]
fn examine(sink: &mut Reader<'_, '_>, _: &Tls) -> bool {
    sink.wrong(
        "url",
        "is an https:// url, and this program was built without the feature librdkafka, which brings TLS; build it with `cargo build --release` (it is in the default features), or write an http:// url".to_owned(),
    );
    false
}

/// RFC 7617: a colon would end it.
fn user_name(name: &str) -> Result<(), String> {
    value::plain_name(name)?;
    if name.contains(':') {
        return Err("has a colon in it, which HTTP does not allow in a user's name; correct it".to_owned());
    }
    Ok(())
}
