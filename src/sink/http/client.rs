//! One request and its whole answer, or why there is none.
//!
//! Owns the agent of the crate `ureq`, and with it the one connection that is kept. What always holds:
//! - a request ends by its deadline, however the server answers;
//! - an answer counts when it is whole, or longer than [`BODY_MAX`]; a redirect is an answer like any other;
//! - of an answer no more than a head of [`HEAD_MAX`] and [`KEPT`] bytes of its body are in memory.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use ureq::http::{HeaderMap, Request, Response};
use ureq::{Agent, Body};

use super::Settings;
use super::answer::{Answer, KEPT, Mask};
use super::connection::{NoResolver, Opener, Shared};
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
}

impl Client {
    pub(super) fn new(settings: &Settings) -> Self {
        let opener = (settings.endpoint.clone(), settings.tls.clone(), settings.timeout);
        let shared = Shared::new();
        Self { agent: agent(&opener, &shared), opener, shared }
    }

    /// Closes the connection that is kept, so that the next one is made anew, with the files of TLS as they are then.
    pub(super) fn close(&mut self) {
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
            self.shared.begin(until);
            let why = match crate::logging::without_panic(|| self.exchange(method, headers, body)) {
                Some(Ok(answer)) => return Ok(answer.masked(mask)),
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

    fn exchange(&self, method: &str, headers: &HeaderMap, body: &[u8]) -> Result<Answer, String> {
        let mut request = Request::builder().method(method).uri(self.opener.0.uri().clone());
        if let Some(map) = request.headers_mut() {
            map.clone_from(headers);
        }
        let request = request.body(body).map_err(|error| error.to_string())?;
        let response = self.agent.run(request).map_err(|error| error.to_string())?;
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

/// The rest of an answer.
fn read(response: Response<Body>) -> io::Result<Answer> {
    let (head, body) = response.into_parts();
    let header =
        |name: &str| head.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let mut beginning = Vec::new();
    let mut reader = body.into_reader().take(BODY_MAX);
    let mut buffer = [0; 8 << 10];
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let room = KEPT.saturating_sub(beginning.len()).min(count);
        beginning.extend_from_slice(buffer.get(..room).unwrap_or_default());
    }
    Ok(Answer {
        status: head.status.as_u16(),
        retry_after: header("retry-after"),
        location: header("location").filter(|_| head.status.is_redirection()),
        beginning,
    })
}
