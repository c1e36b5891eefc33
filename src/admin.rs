//! What a running worker tells over HTTP: metrics, health, status as JSON, a page for people.
//!
//! Owns the thread `admin` and its listener. It reads what the other threads publish, and changes nothing.
//! Invariants:
//! - no client costs the rest more than [`http`]'s bounds: one thread, some places, some megabytes;
//! - what is dear to make is made once in [`FRESH`], however often it is asked for;
//! - without it, or after its end, the worker goes on.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Answer, Request};

pub mod http;
pub mod look;
mod metrics;
mod page;
pub mod status;

pub use look::{Life, Sources};

/// For how long an answer that takes some work serves whoever asks for the same.
pub const FRESH: Duration = Duration::from_millis(250);

const HTML: &str = "text/html; charset=utf-8";
/// Nothing from elsewhere, no frame around it, nothing in the markup that runs.
const HTML_HEADERS: &str = "Content-Security-Policy: default-src 'none'; style-src 'self'; script-src 'self'; \
connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\
Referrer-Policy: no-referrer\r\n";

/// Why nothing can be served.
#[derive(Debug)]
pub struct BindError {
    address: SocketAddr,
    error: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, error } = self;
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => "another program has that port, perhaps another worker: choose another port",
            io::ErrorKind::PermissionDenied => "ports below 1024 need a right of their own: choose a higher one",
            io::ErrorKind::AddrNotAvailable => "this machine does not have that address: choose one that it has",
            _ => "choose another address, or remove the key to do without",
        };
        write!(f, "[admin] listen = \"{address}\": {error}; {advice}")
    }
}

impl std::error::Error for BindError {}

/// Takes the port.
///
/// # Errors
/// It can't be had.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).map_err(|error| BindError { address, error })
}

/// Serves until the other end of `stop` is closed.
pub fn run(listener: &TcpListener, stop: &UnixStream, sources: Sources) {
    let local = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let mut site = Site { sources, local, made: HashMap::new() };
    let mut serve = |request: &Request| site.serve(request);
    if let Err(error) = http::run(listener, stop, &mut serve) {
        log::error!("admin ends, the rest goes on error=\"{error}\"");
    }
}

/// What is served under which path.
struct Site {
    sources: Sources,
    /// Only this machine can reach it.
    local: bool,
    made: HashMap<&'static str, (Instant, Answer)>,
}

impl Site {
    fn serve(&mut self, request: &Request) -> Answer {
        // What is wrong with one answer must not end the others.
        catch_unwind(AssertUnwindSafe(|| self.answer(request))).unwrap_or_else(|panic| {
            let text = crate::client::link::panic_text(&*panic);
            log::error!("admin could not answer path={:?} panic=\"{text}\"", request.path);
            Answer::text("500 Internal Server Error", "this is a bug of the worker; its log says more")
        })
    }

    fn answer(&mut self, request: &Request) -> Answer {
        // A page from elsewhere could give its name our address, and so read in a browser on this machine
        // what is meant for this machine.
        if self.local && request.host.as_deref().is_some_and(|host| !is_local(host)) {
            return Answer::text(
                "403 Forbidden",
                "served to this machine only: ask for localhost or an address, or let a proxy set the Host header so",
            );
        }
        match request.path.as_str() {
            "/" => self.fresh("/", |sources| html(page::topics(&sources.look(Instant::now())))),
            "/metrics" => self.fresh("/metrics", |sources| match metrics::text(sources.look(Instant::now())) {
                Ok(text) => ok(metrics::CONTENT_TYPE, text),
                Err(_) => Answer::text("500 Internal Server Error", "the metrics could not be written"),
            }),
            "/status" => {
                self.fresh("/status", |sources| match serde_json::to_string(&sources.look(Instant::now()).status) {
                    Ok(text) => ok("application/json", text),
                    Err(error) => Answer::text("500 Internal Server Error", &error.to_string()),
                })
            }
            "/healthz" => yes_or_no(&self.sources.not_alive(), "alive"),
            "/readyz" => yes_or_no(&self.sources.not_ready(), "ready"),
            "/page.css" => ok("text/css; charset=utf-8", page::CSS.to_owned()),
            "/page.js" => ok("text/javascript; charset=utf-8", page::JS.to_owned()),
            "/icon.svg" => ok("image/svg+xml", page::ICON.to_owned()),
            other => other.strip_prefix("/topic/").and_then(|name| self.topic(name)).unwrap_or_else(|| {
                Answer::text("404 Not Found", "there are /, /topic/NAME, /status, /metrics, /healthz, /readyz")
            }),
        }
    }

    fn topic(&self, name: &str) -> Option<Answer> {
        self.sources.has(name).then(|| page::topic(&self.sources.look(Instant::now()), name)).flatten().map(html)
    }

    fn fresh(&mut self, path: &'static str, make: impl FnOnce(&Sources) -> Answer) -> Answer {
        match self.made.get(path) {
            Some((at, answer)) if at.elapsed() < FRESH => answer.clone(),
            _ => {
                let answer = make(&self.sources);
                self.made.insert(path, (Instant::now(), answer.clone()));
                answer
            }
        }
    }
}

fn is_local(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

fn ok(content_type: &'static str, text: String) -> Answer {
    Answer { status: "200 OK", content_type, headers: "", body: Arc::from(text.into_bytes()) }
}

fn html(text: String) -> Answer {
    Answer { headers: HTML_HEADERS, ..ok(HTML, text) }
}

/// A 503 with the reasons, a line each.
fn yes_or_no(reasons: &[String], yes: &str) -> Answer {
    if reasons.is_empty() {
        Answer::text("200 OK", yes)
    } else {
        Answer::text("503 Service Unavailable", &reasons.join("\n"))
    }
}
