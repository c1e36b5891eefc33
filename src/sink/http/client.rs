//! One request and its whole answer, or why there is none.
//!
//! Owns the agent of the crate `ureq`, and with it the one connection that is kept. What always holds:
//! - a request ends by its deadline, however the server answers;
//! - an answer counts when it is whole, or longer than [`BODY_MAX`]; a redirect is an answer like any other;
//! - an answer behind which something else has come counts only if it is the first one of its connection: else it may be
//!   the late second answer to the request before, and what came behind it the true one;
//! - of an answer no more than a head of [`HEAD_MAX`] and [`KEPT`] bytes of its body are in memory.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use ureq::http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use ureq::http::{HeaderMap, Request, Response, StatusCode};
use ureq::{Agent, Body};

use super::Settings;
use super::answer::{Answer, KEPT, Mask};
use super::connection::{NoResolver, Opener};
use super::progress::{Brake, Shared};
use crate::client::security::Tls;

/// The head of an answer.
pub(super) const HEAD_MAX: usize = 32 << 10;
/// How much of an answer's body is read. Who sends more is not heard out, and the connection is closed.
const BODY_MAX: u64 = 64 << 10;
/// Most servers close a connection that is idle for longer.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Asks one server, one request at a time.
#[derive(Debug)]
pub(super) struct Client {
    opener: (super::Endpoint, Tls, Duration),
    agent: Agent,
    shared: Shared,
    /// Of the sink, for the log.
    name: String,
    /// The server has sent what nobody had asked for: a connection is used for one request, on which no answer but the one
    /// to it can come.
    once: bool,
}

impl Client {
    pub(super) fn new(name: &str, settings: &Settings) -> Self {
        let opener = (settings.endpoint.clone(), settings.tls.clone(), settings.timeout);
        let shared = Shared::new();
        Self { agent: agent(&opener, &shared), opener, shared, name: name.to_owned(), once: false }
    }

    /// Begins anew: with the files of TLS as they are now, and without what is known of the server.
    pub(super) fn renew(&mut self) {
        self.once = false;
        self.close();
    }

    /// Whether each request gets a connection of its own.
    #[cfg(test)]
    pub(super) fn is_wary(&self) -> bool {
        self.once
    }

    /// What ends a request from another thread.
    pub(super) fn brake(&self) -> Brake {
        self.shared.brake().clone()
    }

    /// Closes the connection that is kept.
    fn close(&mut self) {
        self.agent = agent(&self.opener, &self.shared);
    }

    /// Sends `body` with these headers. What `mask` hides is neither in the answer nor in an error.
    ///
    /// # Errors
    /// Why there is no whole answer, in words. Whether the server has taken the request, nobody knows then.
    pub(super) fn send(
        &mut self,
        method: &str,
        headers: &HeaderMap,
        body: &[u8],
        mask: &Mask,
    ) -> Result<Answer, String> {
        let timeout = self.opener.2;
        let until = Instant::now() + timeout;
        let mut tried = false;
        loop {
            if self.shared.brake().is_pressed() {
                return Err("the worker stops, and sends nothing any more".to_owned());
            }
            self.shared.begin(until);
            let result = crate::logging::without_panic(|| self.exchange(method, headers, body));
            let (opened, surplus) = self.look_at_the_connection(matches!(result, Some(Ok((_, Whole::Yes)))));
            let why = match result {
                // Sent once more, over a new connection.
                Some(Ok(_)) if surplus && !opened && !tried => {
                    tried = true;
                    continue;
                }
                Some(Ok((answer, _))) => return Ok(answer.masked(mask)),
                Some(Err(why)) => why,
                None => {
                    self.close();
                    "the HTTP library broke off on it".to_owned()
                }
            };
            let progress = self.shared.get();
            // The server has closed a connection that was kept, just when a request went out: that says nothing of
            // the request, and the next connection is a new one.
            let stale = !progress.opened && progress.received == 0 && Instant::now() < until;
            if !stale || tried {
                return Err(progress.explain(timeout, &why, mask));
            }
            drop(progress);
            tried = true;
        }
    }

    /// Looks at the connection behind an answer: whether it was a new one, and whether something else has come. That may
    /// also come too late to be seen, behind the next request; so who has done it once is not given another chance.
    fn look_at_the_connection(&mut self, whole: bool) -> (bool, bool) {
        let progress = self.shared.get();
        let (opened, surplus) = (progress.opened, progress.unasked || whole && progress.left);
        drop(progress);
        if surplus && !self.once {
            self.once = true;
            log::warn!(
                "the server sends more than the answer, each request gets a connection of its own sink={} url={}",
                self.name,
                self.opener.0.shown(),
            );
        }
        if self.once {
            self.close();
        }
        (opened, surplus)
    }

    fn exchange(&mut self, method: &str, headers: &HeaderMap, body: &[u8]) -> Result<(Answer, Whole), String> {
        let mut request = Request::builder().method(method).uri(self.opener.0.uri().clone());
        if let Some(map) = request.headers_mut() {
            map.clone_from(headers);
        }
        let request = request.body(body).map_err(|error| error.to_string())?;
        let response = self.agent.run(request).map_err(|error| error.to_string())?;
        if contradicts_itself(&response) {
            self.close();
        }
        read(response).map_err(|error| error.to_string())
    }
}

fn agent((endpoint, tls, timeout): &(super::Endpoint, Tls, Duration), shared: &Shared) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        // That of the environment is meant for others: what leaves this machine stands in the configuration.
        .proxy(None)
        .user_agent(concat!("worker/", env!("CARGO_PKG_VERSION")))
        .max_response_header_size(HEAD_MAX)
        .max_idle_connections(1)
        .max_idle_connections_per_host(1)
        .max_idle_age(IDLE_MAX)
        .build();
    let (endpoint, tls, timeout) = (endpoint.clone(), tls.clone(), *timeout);
    Agent::with_parts(config, Opener { endpoint, tls, timeout, shared: shared.clone() }, NoResolver)
}

/// Whether nobody can say where an answer ends: it has a body that it must not have (RFC 9112, 6.3), or two lengths. What
/// follows on its connection may be its rest, and would be taken for the next answer.
fn contradicts_itself(response: &Response<Body>) -> bool {
    let length = response.headers().get(CONTENT_LENGTH);
    let chunked = response.headers().contains_key(TRANSFER_ENCODING);
    match response.status() {
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => chunked || length.is_some_and(|length| length != "0"),
        _ => chunked && length.is_some(),
    }
}

/// Whether an answer was read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whole {
    Yes,
    No,
}

/// The rest of an answer.
fn read(response: Response<Body>) -> io::Result<(Answer, Whole)> {
    let (head, body) = response.into_parts();
    let header =
        |name: &str| head.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let (mut beginning, mut whole) = (Vec::new(), Whole::Yes);
    let mut reader = body.into_reader().take(BODY_MAX);
    let mut buffer = [0; 8 << 10];
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => {
                if reader.limit() == 0 {
                    whole = Whole::No;
                }
                break;
            }
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let room = KEPT.saturating_sub(beginning.len()).min(count);
        beginning.extend_from_slice(buffer.get(..room).unwrap_or_default());
    }
    // A connection that is not kept is closed here.
    drop(reader);
    let answer = Answer {
        status: head.status.as_u16(),
        retry_after: header("retry-after"),
        location: header("location").filter(|_| head.status.is_redirection()),
        beginning,
    };
    Ok((answer, whole))
}
