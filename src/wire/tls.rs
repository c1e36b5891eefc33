//! TLS towards a broker, and towards the service behind a sink `http`: what the files of [`Tls`] come to, the handshake, and in words why there is none.
//!
//! With `scram` the only place that names the crate `openssl`. What always holds: without
//! `verify_hostname = false` a broker is talked to only if its certificate is valid now, from a trusted authority, and
//! for the host that was asked for; no version below TLS 1.2 is spoken.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{ErrorCode, HandshakeError, SslConnector, SslMethod, SslStream, SslVerifyMode, SslVersion};
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{X509, X509Ref, X509StoreContextRef};

use super::exchange::Trouble;
use super::stream::{Bounded, Stream};
use crate::client::security::{Identity, Tls};

/// How many settings' contexts are kept; a process has one, and a second one after a reload.
const KEPT: usize = 16;

/// The words for those who are talked to: who they are, and which settings decide.
#[derive(Debug)]
pub struct Terms {
    /// What they are called.
    pub who: &'static str,
    /// The settings with the authorities, with our certificate and with its key.
    pub ca: &'static str,
    /// See `ca`.
    pub certificate: &'static str,
    /// See `ca`.
    pub key: &'static str,
    /// What to do about a key that is encrypted.
    pub encrypted: &'static str,
    /// What to do about a certificate for another name.
    pub other_name: &'static str,
    /// What to do about a peer that does not speak TLS.
    pub no_tls: &'static str,
    /// The peer's setting that wants a certificate of us, in brackets.
    pub wants: &'static str,
    /// Where the peer keeps the authorities that it trusts.
    pub trusts: &'static str,
}

/// Of `[kafka.tls]`.
pub const BROKERS: Terms = Terms {
    who: "broker",
    ca: "kafka.tls.ca",
    certificate: "kafka.tls.certificate",
    key: "kafka.tls.key",
    encrypted: "write key_password or key_password_file",
    other_name: "name the broker as its certificate does (kafka.bootstrap_servers, and the broker's advertised.listeners), or get it a certificate for this name; kafka.tls.verify_hostname = false would take any",
    no_tls: "name the port of the SSL or SASL_SSL listener in kafka.bootstrap_servers, or leave out [kafka.tls]",
    wants: " (ssl.client.auth)",
    trusts: "in its ssl.truststore",
};

impl Terms {
    /// The setting of a [`Wrong`], in full.
    fn full(&self, key: &'static str) -> &'static str {
        match key {
            "ca" => self.ca,
            "certificate" => self.certificate,
            "key" => self.key,
            _ => "kafka.tls.key_password",
        }
    }
}

/// What is wrong with the files that the settings name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The key, without its table.
    pub key: &'static str,
    /// What is wrong with its value; what to do.
    pub text: String,
}

/// Reads a file.
pub type ReadFile<'f> = &'f dyn Fn(&Path) -> io::Result<Vec<u8>>;

/// What is wrong with the files of these settings, if anything is.
///
/// # Errors
/// The first thing that is wrong.
pub fn examine(tls: &Tls, terms: &Terms, read: ReadFile<'_>) -> Result<(), Wrong> {
    let local = |wrong: Wrong| {
        let full = terms.full(wrong.key);
        Wrong { key: full.rsplit('.').next().unwrap_or(full), ..wrong }
    };
    context(tls, terms, read).map(drop).map_err(local)
}

fn context(tls: &Tls, terms: &Terms, read: ReadFile<'_>) -> Result<SslConnector, Wrong> {
    let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(|e| openssl("ca", &e))?;
    builder.set_min_proto_version(Some(SslVersion::TLS1_2)).map_err(|e| openssl("ca", &e))?;
    if let Some(path) = &tls.ca {
        let mut store = X509StoreBuilder::new().map_err(|e| openssl("ca", &e))?;
        for certificate in certificates("ca", path, read)? {
            store.add_cert(certificate).map_err(|e| openssl("ca", &e))?;
        }
        builder.set_cert_store(store.build());
    } else {
        // OpenSSL that was built along knows no place of this system.
        let found = openssl_probe::probe();
        if let Some(file) = &found.cert_file {
            builder.set_ca_file(file).map_err(|e| openssl("ca", &e))?;
        }
    }
    if let Some(Identity { certificate, key, key_password }) = &tls.identity {
        let mut chain = certificates("certificate", certificate, read)?.into_iter();
        let own = chain.next().ok_or_else(|| no_pem("certificate", certificate, &[], "certificate"))?;
        let password = key_password.as_ref().map(|secret| secret.reveal());
        let private = private_key(key, password, terms, read)?;
        let public = own.public_key().map_err(|e| openssl("certificate", &e))?;
        if !public.public_eq(&private) {
            let text = format!(
                "is {}, which is not the key of the certificate in {} ({}); name the two that belong together",
                shown(key),
                terms.certificate,
                certificate.display()
            );
            return Err(Wrong { key: "key", text });
        }
        builder.set_certificate(&own).map_err(|e| openssl("certificate", &e))?;
        builder.set_private_key(&private).map_err(|e| openssl("key", &e))?;
        for between in chain {
            builder.add_extra_chain_cert(between).map_err(|e| openssl("certificate", &e))?;
        }
    }
    Ok(builder.build())
}

fn shown(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().escape_debug())
}

fn openssl(key: &'static str, error: &ErrorStack) -> Wrong {
    Wrong { key, text: format!("is refused by OpenSSL: {}; name another file", reason(error)) }
}

fn load(key: &'static str, path: &Path, read: ReadFile<'_>) -> Result<Vec<u8>, Wrong> {
    read(path).map_err(|error| {
        let what = match error.kind() {
            io::ErrorKind::NotFound => "which does not exist; correct the path, or put the file there".to_owned(),
            io::ErrorKind::PermissionDenied => {
                "which may not be read; give the worker's user read permission for it".to_owned()
            }
            io::ErrorKind::IsADirectory => "which is a directory; name the file in it".to_owned(),
            _ => format!("which can't be read: {error}"),
        };
        Wrong { key, text: format!("is {}, {what}", shown(path)) }
    })
}

fn certificates(key: &'static str, path: &Path, read: ReadFile<'_>) -> Result<Vec<X509>, Wrong> {
    let bytes = load(key, path, read)?;
    match X509::stack_from_pem(&bytes) {
        Ok(list) if !list.is_empty() => Ok(list),
        _ => Err(no_pem(key, path, &bytes, "certificate")),
    }
}

/// What is there in place of a PEM file with a `wanted` in it.
fn no_pem(key: &'static str, path: &Path, bytes: &[u8], wanted: &str) -> Wrong {
    let is = match bytes {
        [0xfe, 0xed, 0xfe, 0xed, ..] => {
            "it is a Java key store (keytool -exportcert -rfc, or openssl pkcs12, gives PEM)"
        }
        [0x30, 0x80..=0x84, ..] => {
            "it looks like DER or PKCS#12 (openssl x509 -inform der, or openssl pkcs12, gives PEM)"
        }
        _ if bytes.is_empty() => "it is empty",
        _ if contains(bytes, b"PRIVATE KEY-----") && wanted == "certificate" => "it holds a private key",
        _ if contains(bytes, b"BEGIN CERTIFICATE-----") && wanted != "certificate" => "it holds a certificate",
        _ if contains(bytes, b"-----BEGIN ") => "what it holds is damaged",
        _ => "it has no line that begins with -----BEGIN",
    };
    Wrong { key, text: format!("is {}, which is no PEM file of a {wanted}: {is}; name such a file", shown(path)) }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn private_key(path: &Path, password: Option<&str>, terms: &Terms, read: ReadFile<'_>) -> Result<PKey<Private>, Wrong> {
    let bytes = load("key", path, read)?;
    let mut encrypted = false;
    let key = PKey::private_key_from_pem_callback(&bytes, |buffer| {
        encrypted = true;
        let password = password.unwrap_or_default().as_bytes();
        let there = buffer.get_mut(..password.len()).ok_or_else(ErrorStack::get)?;
        there.copy_from_slice(password);
        Ok(password.len())
    });
    key.map_err(|_| match (encrypted, password) {
        (true, None) => {
            Wrong { key: "key", text: format!("is {}, which is encrypted; {}", shown(path), terms.encrypted) }
        }
        (true, Some(_)) => Wrong {
            key: "key_password",
            text: format!("does not decrypt the key in {}; write the right one", shown(path)),
        },
        (false, _) => no_pem("key", path, &bytes, "private key"),
    })
}

/// Size and time of change of each file: when they change, the files are read again.
type Stamps = Vec<Option<(u64, Option<SystemTime>)>>;

fn stamps(tls: &Tls) -> Stamps {
    let identity = tls.identity.as_ref();
    let files: [Option<&PathBuf>; 3] = [tls.ca.as_ref(), identity.map(|i| &i.certificate), identity.map(|i| &i.key)];
    let stamp = |path: &&PathBuf| fs::metadata(path).ok().map(|file| (file.len(), file.modified().ok()));
    files.iter().flatten().map(stamp).collect()
}

/// The context of these settings. Kept over connections: hundreds of consumers need not read the same files again.
fn kept(tls: &Tls, terms: &Terms) -> Result<SslConnector, Wrong> {
    static KEPT_ONES: Mutex<Vec<(Tls, Stamps, SslConnector)>> = Mutex::new(Vec::new());
    let now = stamps(tls);
    // The list is whole at any moment.
    let list = || KEPT_ONES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((.., context)) = list().iter().find(|(of, stamps, _)| of == tls && *stamps == now) {
        return Ok(context.clone());
    }
    let context = context(tls, terms, &|path| fs::read(path))?;
    let mut list = list();
    list.retain(|(of, ..)| of != tls);
    if list.len() == KEPT {
        list.remove(0);
    }
    list.push((tls.clone(), now, context.clone()));
    Ok(context)
}

/// The handshake with `host`, over a socket that ends it by its deadline.
///
/// # Errors
/// What to tell of `host`, or the trouble with the socket.
pub(crate) fn connect(tls: &Tls, terms: &'static Terms, host: &str, socket: Bounded) -> Result<Stream, Trouble> {
    let context =
        kept(tls, terms).map_err(|Wrong { key, text }| Trouble::Tls(format!("{} {text}", terms.full(key))))?;
    let setup = |error: ErrorStack| Trouble::Tls(format!("OpenSSL refuses to begin: {}", reason(&error)));
    let configured = context.configure().map_err(setup)?.verify_hostname(tls.verify_hostname);
    let mut ssl = configured.into_ssl(host).map_err(setup)?;
    let doubt: Arc<Mutex<Option<String>>> = Arc::default();
    let told = Arc::clone(&doubt);
    let (of, name) = (tls.clone(), host.to_owned());
    ssl.set_verify_callback(SslVerifyMode::PEER, move |good, chain| {
        if !good {
            *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(distrust(chain, &of, terms, &name));
        }
        good
    });
    let failed = match ssl.connect(socket) {
        Ok(stream) => return Ok(Stream::Tls(Box::new(stream))),
        Err(HandshakeError::SetupFailure(error)) => return Err(setup(error)),
        Err(HandshakeError::Failure(failed) | HandshakeError::WouldBlock(failed)) => failed,
    };
    if let Some(distrust) = doubt.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(Trouble::Tls(distrust));
    }
    Err(match trouble(failed.error()) {
        Trouble::Alert(reason) => Trouble::Tls(explain(&reason, tls, terms)),
        other => other,
    })
}

/// Bytes that have come and were not read, without taking them away; an error of the kind `WouldBlock` if there are none,
/// 0 at the peer's end. What is no data is taken in: tickets, new keys.
pub(super) fn peek<S: io::Read + io::Write>(stream: &mut SslStream<S>, into: &mut [u8]) -> io::Result<usize> {
    match stream.ssl_peek(into) {
        Ok(count) => Ok(count),
        Err(error) => match error.code() {
            ErrorCode::ZERO_RETURN => Ok(0),
            ErrorCode::SYSCALL if error.io_error().is_none() => Ok(0),
            ErrorCode::WANT_READ | ErrorCode::WANT_WRITE => Err(io::ErrorKind::WouldBlock.into()),
            _ => Err(error.into_io_error().unwrap_or_else(io::Error::other)),
        },
    }
}

/// Why the peer's certificate is not believed.
fn distrust(chain: &X509StoreContextRef, tls: &Tls, terms: &Terms, host: &str) -> String {
    // Numbers of OpenSSL's X509_verify_cert_error_string(3).
    const NOT_YET_VALID: i32 = 9;
    const EXPIRED: i32 = 10;
    const UNKNOWN_AUTHORITY: [i32; 5] = [2, 18, 19, 20, 21];
    const OTHER_NAME: [i32; 2] = [62, 64];
    let (error, who) = (chain.error(), terms.who);
    let certificate = chain.current_cert();
    let subject = certificate.map_or_else(String::new, |c| format!(" ({})", name(c.subject_name())));
    let whose = if chain.error_depth() == 0 { "its certificate" } else { "a certificate in its chain" };
    match error.as_raw() {
        EXPIRED => {
            let until = certificate.map_or_else(String::new, |c| c.not_after().to_string());
            format!(
                "{whose}{subject} has expired: it was valid until {until}; the {who} needs a new one (if it has not, look at this machine's clock)"
            )
        }
        NOT_YET_VALID => {
            let from = certificate.map_or_else(String::new, |c| c.not_before().to_string());
            format!("{whose}{subject} is not valid before {from}; look at the clocks of the {who} and of this machine")
        }
        code if UNKNOWN_AUTHORITY.contains(&code) => {
            let issuer = certificate.map_or_else(String::new, |c| format!(" ({})", name(c.issuer_name())));
            let advice = match &tls.ca {
                Some(path) => format!("{} ({}) has to hold that authority's certificate", terms.ca, path.display()),
                None => {
                    format!(
                        "this system does not trust it: write the PEM file of the {who}s' authority as {}",
                        terms.ca
                    )
                }
            };
            format!(
                "{whose} is from an authority{issuer} that is not trusted here ({}); {advice}",
                error.error_string()
            )
        }
        code if OTHER_NAME.contains(&code) => {
            let names = certificate.map_or_else(String::new, names);
            format!("its certificate is for {names}, not for {host}; {}", terms.other_name)
        }
        _ => format!("{whose}{subject} is not good: {}", error.error_string()),
    }
}

/// The names that a certificate is for, without what a terminal would obey.
fn names(certificate: &X509Ref) -> String {
    let alternative = certificate.subject_alt_names();
    let names = alternative.iter().flatten().filter_map(|name| {
        name.dnsname().map(str::to_owned).or_else(|| match name.ipaddress()? {
            [a, b, c, d] => Some(format!("{a}.{b}.{c}.{d}")),
            bytes => <[u8; 16]>::try_from(bytes).ok().map(|v6| std::net::Ipv6Addr::from(v6).to_string()),
        })
    });
    let names: Vec<String> = names.map(|name| name.escape_debug().to_string()).collect();
    if names.is_empty() { name(certificate.subject_name()) } else { names.join(", ") }
}

/// `CN=broker, O=Example`
fn name(name: &openssl::x509::X509NameRef) -> String {
    let part = |entry: &openssl::x509::X509NameEntryRef| {
        let value = String::from_utf8_lossy(entry.data().as_slice()).escape_debug().to_string();
        format!("{}={value}", entry.object().nid().short_name().unwrap_or("?"))
    };
    let parts: Vec<String> = name.entries().map(part).collect();
    if parts.is_empty() { "without a subject".to_owned() } else { parts.join(", ") }
}

/// The reason in OpenSSL's words.
fn reason(error: &ErrorStack) -> String {
    let first = error.errors().first();
    first.and_then(openssl::error::Error::reason).unwrap_or("an error without a name").to_owned()
}

/// What went wrong on a connection under TLS.
pub(super) fn trouble(error: &openssl::ssl::Error) -> Trouble {
    if let Some(io) = error.io_error() {
        return io::Error::new(io.kind(), io.to_string()).into();
    }
    match (error.code(), error.ssl_error()) {
        // OpenSSL 3 has this word for a connection that ends without the goodbye of TLS.
        (_, Some(stack)) if reason(stack).contains("unexpected eof") => Trouble::Ended,
        (_, Some(stack)) => Trouble::Alert(reason(stack)),
        (ErrorCode::SYSCALL | ErrorCode::ZERO_RETURN, None) => Trouble::Ended,
        (..) => Trouble::Alert(error.to_string()),
    }
}

/// What OpenSSL's reason means here, and what to do.
pub(crate) fn explain(reason: &str, tls: &Tls, terms: &Terms) -> String {
    let Terms { who, certificate, key, .. } = terms;
    let has = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    // A reason with "alert" in it is what the peer has said.
    let advice = if !has(&["alert"]) {
        if has(&["wrong version number", "http request", "packet length too long", "unknown protocol"]) {
            format!("what answers there does not speak TLS: {}", terms.no_tls)
        } else if has(&["unsupported protocol"]) {
            "it speaks no version of TLS from 1.2 on".to_owned()
        } else {
            format!("look at the {who}'s log for the other side of it")
        }
    } else if has(&["certificate required", "bad certificate", "handshake failure"]) && tls.identity.is_none() {
        format!("the {who} wants a client certificate{}: write {certificate} and {key}", terms.wants)
    } else if has(&["unknown ca", "bad certificate", "certificate unknown"]) {
        let trusts = terms.trusts;
        format!("the {who} does not trust the certificate in {certificate}: it has to be from an authority {trusts}")
    } else if has(&["certificate expired"]) {
        format!("the certificate in {certificate} has expired: get a new one")
    } else if has(&["protocol version"]) {
        format!("the {who} speaks no version of TLS from 1.2 on")
    } else {
        format!("the {who} refuses: look at its log for the reason")
    };
    format!("{reason}; {advice}")
}
