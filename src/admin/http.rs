//! A small HTTP/1.1 server for answers that are in memory: one thread, sockets that never block.
//!
//! Owns the listener and its connections. It knows nothing of what is served. The crates that were looked
//! at start a thread a connection and give it no time limit, so that a client which never ends its request
//! keeps a thread for ever. Here a client can cost no more than its place and some kilobytes, because:
//! - there are [`CONNECTIONS`] places; a new client gets that of the one that has been slowest;
//! - a request has [`HEAD_BYTES`] and [`REQUEST_TIME`], an answer has [`ANSWER_TIME`];
//! - answers that wait for slow readers hold [`PENDING_BYTES`] in all, then the slowest is let go;
//! - a connection serves one request, and nothing that follows the request's head is read into memory.
//!
//! RFC 9112 is the form of what is read and written here.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Connections at the same time. A browser opens six, a scraper one.
pub const CONNECTIONS: usize = 64;
/// The request line and all header lines, in bytes.
pub const HEAD_BYTES: usize = 8 << 10;
/// How long a request may take to come in.
pub const REQUEST_TIME: Duration = Duration::from_secs(5);
/// How long an answer may take to be taken.
pub const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Bytes of answers that have not been taken, those that are the same counted once. The largest single
/// answer goes beyond it.
pub const PENDING_BYTES: usize = 16 << 20;

/// How long the other side may take to close after the answer.
const CLOSE_TIME: Duration = Duration::from_secs(1);
/// What may still come in meanwhile, in bytes. Closed with something unread, the system would throw away
/// what the other side has not read yet.
const CLOSE_BYTES: usize = 64 << 10;
/// Connections that are accepted before those that are there are served.
const ACCEPTS: usize = 32;
/// How long no connection is accepted after that has failed, for instance as there are no descriptors left.
const REST: Duration = Duration::from_secs(1);

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The target's path, as it was written.
    pub path: String,
    /// The `Host` header without the port, if there is one.
    pub host: Option<String>,
}

/// What is answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status: its number and its words.
    pub status: &'static str,
    /// `Content-Type`
    pub content_type: &'static str,
    /// More header lines, each with its line end.
    pub headers: &'static str,
    /// The body.
    pub body: Arc<[u8]>,
}

impl Answer {
    /// A line of plain text.
    pub fn text(status: &'static str, text: &str) -> Self {
        let body = format!("{text}\n").into_bytes().into();
        Self { status, content_type: "text/plain; charset=utf-8", headers: "", body }
    }
}

/// A request's head that can't be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    NotHttp,
    Method,
    TooLarge,
    TooSlow,
}

impl Wrong {
    fn answer(self) -> Answer {
        match self {
            Self::NotHttp => Answer::text("400 Bad Request", "this is not a request of HTTP/1.1 or HTTP/1.0"),
            Self::Method => Answer {
                headers: "Allow: GET, HEAD\r\n",
                ..Answer::text("405 Method Not Allowed", "nothing can be changed here: only GET and HEAD")
            },
            Self::TooLarge => {
                Answer::text("431 Request Header Fields Too Large", "the request's head is larger than 8 KiB")
            }
            Self::TooSlow => Answer::text("408 Request Timeout", "the request did not come in within 5 s"),
        }
    }
}

/// A complete head.
struct Head {
    request: Request,
    /// Only the head of the answer is wanted.
    head_only: bool,
}

/// The head at the beginning of `bytes`; `None` while it is not complete.
fn parse(bytes: &[u8]) -> Option<Result<Head, Wrong>> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let Some(end) = end else { return (bytes.len() >= HEAD_BYTES).then_some(Err(Wrong::TooLarge)) };
    let Ok(text) = std::str::from_utf8(&bytes[..end]) else { return Some(Err(Wrong::NotHttp)) };
    let mut lines = text.split("\r\n");
    let words: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let [method, target, version] = words[..] else { return Some(Err(Wrong::NotHttp)) };
    if !version.starts_with("HTTP/1.") || method.is_empty() {
        return Some(Err(Wrong::NotHttp));
    }
    let head_only = match method {
        "GET" => false,
        "HEAD" => true,
        _ => return Some(Err(Wrong::Method)),
    };
    // The absolute form, as it goes to proxies.
    let path = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => target,
    };
    if !path.starts_with('/') {
        return Some(Err(Wrong::NotHttp));
    }
    let path = path.split(['?', '#']).next().unwrap_or(path).to_owned();
    let named = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("host").then(|| without_port(value.trim()).to_owned())
    };
    Some(Ok(Head { request: Request { path, host: lines.find_map(named) }, head_only }))
}

/// `[::1]:80` is `[::1]`.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

enum Phase {
    /// The head comes in.
    Reading(Vec<u8>),
    /// The answer goes out; `done`: so many bytes of both have.
    Writing { head: Vec<u8>, body: Option<Arc<[u8]>>, done: usize },
    /// All is said; so many bytes have come in since.
    Closing(usize),
}

struct Connection {
    stream: TcpStream,
    phase: Phase,
    deadline: Instant,
}

/// What is left of a connection after a step.
#[derive(PartialEq, Eq)]
enum Left {
    Open,
    Closed,
}

impl Connection {
    fn wants(&self) -> PollFlags {
        match self.phase {
            Phase::Reading(_) | Phase::Closing(_) => PollFlags::IN,
            Phase::Writing { .. } => PollFlags::OUT,
        }
    }

    /// Goes on as far as it can without waiting.
    fn step(&mut self, now: Instant, serve: &mut dyn FnMut(&Request) -> Answer) -> io::Result<Left> {
        let mut chunk = [0; 4096];
        loop {
            match &mut self.phase {
                Phase::Reading(head) => {
                    let count = match (&self.stream).read(&mut chunk) {
                        Ok(0) => return Ok(Left::Closed),
                        Ok(count) => count,
                        Err(error) => return until_ready(error),
                    };
                    head.extend_from_slice(&chunk[..count]);
                    match parse(head) {
                        None => {}
                        Some(Ok(Head { request, head_only })) => self.answer(&serve(&request), head_only, now),
                        Some(Err(wrong)) => self.answer(&wrong.answer(), false, now),
                    }
                }
                Phase::Writing { head, body, done } => {
                    let rest = match done.checked_sub(head.len()) {
                        None => &head[*done..],
                        Some(done) => body.as_deref().map_or(&[][..], |body| &body[done..]),
                    };
                    if rest.is_empty() {
                        self.stream.shutdown(Shutdown::Write)?;
                        (self.phase, self.deadline) = (Phase::Closing(0), now + CLOSE_TIME);
                        continue;
                    }
                    match (&self.stream).write(rest) {
                        Ok(count) => *done += count,
                        Err(error) => return until_ready(error),
                    }
                }
                Phase::Closing(read) => match (&self.stream).read(&mut chunk) {
                    Ok(0) => return Ok(Left::Closed),
                    Ok(count) => {
                        *read += count;
                        if *read > CLOSE_BYTES {
                            return Ok(Left::Closed);
                        }
                    }
                    Err(error) => return until_ready(error),
                },
            }
        }
    }

    fn answer(&mut self, answer: &Answer, head_only: bool, now: Instant) {
        let Answer { status, content_type, headers, body } = answer;
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n{headers}\r\n",
            body.len()
        );
        let body = (!head_only).then(|| Arc::clone(body));
        (self.phase, self.deadline) = (Phase::Writing { head: head.into_bytes(), body, done: 0 }, now + ANSWER_TIME);
    }

    fn pending(&self) -> Option<&Arc<[u8]>> {
        match &self.phase {
            Phase::Writing { body, .. } => body.as_ref(),
            Phase::Reading(_) | Phase::Closing(_) => None,
        }
    }
}

fn until_ready(error: io::Error) -> io::Result<Left> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(Left::Open),
        _ => Err(error),
    }
}

/// The connections, the oldest first.
#[derive(Default)]
struct Connections(Vec<Connection>);

impl Connections {
    /// Makes room for one more: who has not even sent its request goes first, then the oldest.
    fn make_room(&mut self) {
        if self.0.len() < CONNECTIONS {
            return;
        }
        let slow = self.0.iter().position(|one| !matches!(one.phase, Phase::Writing { .. }));
        // The stream is closed as it is dropped.
        drop(self.0.remove(slow.unwrap_or(0)));
    }

    /// Lets the slowest readers go until what is pending is within bounds.
    fn bound_pending(&mut self) {
        loop {
            let mut bodies: Vec<&Arc<[u8]>> = self.0.iter().filter_map(Connection::pending).collect();
            bodies.sort_unstable_by_key(|body| body.as_ptr());
            bodies.dedup_by_key(|body| body.as_ptr());
            if bodies.len() < 2 || bodies.iter().map(|body| body.len()).sum::<usize>() <= PENDING_BYTES {
                return;
            }
            let Some(oldest) = self.0.iter().position(|one| one.pending().is_some()) else { return };
            drop(self.0.remove(oldest));
        }
    }

    /// A connection is served, or closed.
    fn step(&mut self, index: usize, now: Instant, serve: &mut dyn FnMut(&Request) -> Answer) -> Left {
        let left = self.0[index].step(now, serve).unwrap_or(Left::Closed);
        if left == Left::Closed {
            drop(self.0.remove(index));
        }
        left
    }

    /// Whose time is over is told so if it can still be told anything, and closed.
    fn expire(&mut self, now: Instant) {
        for index in (0..self.0.len()).rev() {
            let one = &mut self.0[index];
            if now < one.deadline {
                continue;
            }
            let begun = matches!(&one.phase, Phase::Reading(head) if !head.is_empty());
            if begun {
                one.answer(&Wrong::TooSlow.answer(), false, now);
                self.step(index, now, &mut |_| Wrong::TooSlow.answer());
            } else {
                drop(self.0.remove(index));
            }
        }
    }
}

/// Serves until the other end of `stop` is closed.
///
/// # Errors
/// The system can't say any more which socket is ready.
pub fn run(listener: &TcpListener, stop: &UnixStream, serve: &mut dyn FnMut(&Request) -> Answer) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut connections = Connections::default();
    let mut rests_until: Option<Instant> = None;
    loop {
        let ready = {
            let listens = if rests_until.is_none() { PollFlags::IN } else { PollFlags::empty() };
            let mut polled = vec![PollFd::new(stop, PollFlags::IN), PollFd::new(listener, listens)];
            polled.extend(connections.0.iter().map(|one| PollFd::new(&one.stream, one.wants())));
            let next = connections.0.iter().map(|one| one.deadline).chain(rests_until).min();
            let wait = next.map(|at| timespec(at.saturating_duration_since(Instant::now())));
            match poll(&mut polled, wait.as_ref()) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            polled.iter().map(|one| !one.revents().is_empty()).collect::<Vec<bool>>()
        };
        let now = Instant::now();
        if ready[0] {
            return Ok(());
        }
        // From behind, because one that is closed leaves its place.
        for index in (0..connections.0.len()).rev() {
            if ready[index + 2] {
                connections.step(index, now, serve);
            }
        }
        if rests_until.is_some_and(|until| until <= now) {
            rests_until = None;
        } else if ready[1] && accept(listener, &mut connections, now, serve).is_err() {
            rests_until = Some(now + REST);
        }
        connections.expire(now);
        connections.bound_pending();
    }
}

/// Takes those who wait, and serves at once what they have sent already: so nobody who asks properly is
/// pushed out by those who come after.
fn accept(
    listener: &TcpListener,
    connections: &mut Connections,
    now: Instant,
    serve: &mut dyn FnMut(&Request) -> Answer,
) -> io::Result<()> {
    for _ in 0..ACCEPTS {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => return Ok(()),
                ErrorKind::Interrupted | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset => continue,
                _ => {
                    log::debug!("admin can't accept connections, trying again error=\"{error}\"");
                    return Err(error);
                }
            },
        };
        if stream.set_nonblocking(true).is_err() {
            continue;
        }
        connections.make_room();
        connections.0.push(Connection { stream, phase: Phase::Reading(Vec::new()), deadline: now + REQUEST_TIME });
        connections.step(connections.0.len() - 1, now, serve);
    }
    Ok(())
}

fn timespec(wait: Duration) -> Timespec {
    // Rounded up, so that what is due is due when it wakes.
    let wait = wait + Duration::from_millis(1);
    Timespec { tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX), tv_nsec: wait.subsec_nanos().into() }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
