//! A web server that answers as it is told to, byte for byte: on plain sockets, with threads, one a connection.
//!
//! Needs nothing but the standard library, so that the unit tests of the sink `http` use it, too.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// The number of its connection, from 0.
    pub connection: usize,
    /// `POST /orders HTTP/1.1`
    pub line: String,
    /// Names in small letters.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// The value of a header that is there once, if it is.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(own, _)| own == name).map(|(_, value)| value.as_str());
        let value = found.next();
        assert_eq!(found.next(), None, "{name} stands there twice");
        value
    }

    /// A header with a number.
    #[track_caller]
    pub fn number(&self, name: &str) -> i64 {
        self.header(name).unwrap_or_else(|| panic!("no {name} in {self:?}")).parse().unwrap()
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub enum Reply {
    /// These bytes; the connection stays.
    Keep(Vec<u8>),
    /// The first bytes, and the second ones in a packet of their own; the connection stays.
    Twice(Vec<u8>, Vec<u8>),
    /// These bytes, and the connection is closed.
    Close(Vec<u8>),
    /// The first bytes, and then the second ones again and again.
    Endless(Vec<u8>, Vec<u8>),
    /// One of these bytes at a time, with so long between them.
    Drip(Vec<u8>, Duration),
    /// Nothing, until the client goes.
    Silence,
}

/// An answer with this status and body.
pub fn answer(status: u16, headers: &str, body: &str) -> Reply {
    Reply::Keep(format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

/// 200, and nothing else to say.
pub fn ok() -> Reply {
    answer(200, "", "")
}

/// A connection, in the clear or not.
pub trait Link: Read + Write + Send {}
impl<T: Read + Write + Send> Link for T {}

type Wrap = dyn Fn(TcpStream) -> Option<Box<dyn Link>> + Send + Sync;
type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    connections: usize,
    /// How many second packets were sent.
    seconds: usize,
    open: HashMap<usize, TcpStream>,
    /// Dropped at the end: who drips sees it.
    stops: Vec<Sender<()>>,
    stopped: bool,
}

#[derive(Default)]
struct Seen {
    state: Mutex<State>,
    changed: Condvar,
}

/// A running server. Dropped, it is gone with all its connections.
pub struct Web {
    address: SocketAddr,
    seen: Arc<Seen>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Web {
    /// At any port.
    pub fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::open(SocketAddr::from(([127, 0, 0, 1], 0)), b"", |stream| Some(Box::new(stream)), handler)
    }

    /// At the address of one that is gone.
    pub fn start_at(address: SocketAddr, handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::open(address, b"", |stream| Some(Box::new(stream)), handler)
    }

    /// Each connection begins with `greeting`, before anything was asked, and goes through `wrap`.
    pub fn open(
        address: SocketAddr,
        greeting: &'static [u8],
        wrap: impl Fn(TcpStream) -> Option<Box<dyn Link>> + Send + Sync + 'static,
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let deadline = Instant::now() + Duration::from_secs(20);
        let listener = loop {
            match TcpListener::bind(address) {
                Ok(listener) => break listener,
                // Somebody's connection outwards may have the port for a moment.
                Err(error) => assert!(Instant::now() < deadline, "{address}: {error}"),
            }
            thread::yield_now();
        };
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let own = Arc::clone(&seen);
        let (wrap, handler): (Arc<Wrap>, Arc<Handler>) = (Arc::new(wrap), Arc::new(handler));
        let accept = move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                let mut state = own.state.lock().unwrap();
                if state.stopped {
                    return;
                }
                let number = state.connections;
                state.connections += 1;
                state.open.insert(number, stream.try_clone().unwrap());
                let (stop, stopped) = channel();
                state.stops.push(stop);
                drop(state);
                own.changed.notify_all();
                let (seen, wrap, handler) = (Arc::clone(&own), Arc::clone(&wrap), Arc::clone(&handler));
                let serve = move || {
                    let closer = stream.try_clone().unwrap();
                    // An error of the connection is its end.
                    let _ = serve(stream, number, greeting, &*wrap, &*handler, &seen, &stopped);
                    let _ = closer.shutdown(Shutdown::Both);
                    seen.state.lock().unwrap().open.remove(&number);
                };
                thread::Builder::new().name(format!("web/{number}")).spawn(serve).unwrap();
            }
        };
        let thread = thread::Builder::new().name("web".to_owned()).spawn(accept).unwrap();
        Self { address, seen, thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}/orders", self.address)
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.seen.state.lock().unwrap().requests.clone()
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.seen.state.lock().unwrap().connections
    }

    /// Waits until there have been so many requests.
    #[track_caller]
    pub fn wait_requests(&self, count: usize, at_most: Duration) -> Vec<Request> {
        let deadline = Instant::now() + at_most;
        let mut state = self.seen.state.lock().unwrap();
        while state.requests.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{} requests after {at_most:?}, not {count}", state.requests.len());
            state = self.seen.changed.wait_timeout(state, left).unwrap().0;
        }
        state.requests.clone()
    }

    /// Waits until so many second packets were sent.
    #[track_caller]
    pub fn wait_seconds(&self, count: usize, at_most: Duration) {
        let state = self.seen.state.lock().unwrap();
        let waited = self.seen.changed.wait_timeout_while(state, at_most, |state| state.seconds < count).unwrap();
        assert!(!waited.1.timed_out(), "not {count} second packets after {at_most:?}");
    }

    /// Closes what is open now, and goes on.
    pub fn close_connections(&self) {
        for stream in self.seen.state.lock().unwrap().open.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        let mut state = self.seen.state.lock().unwrap();
        state.stopped = true;
        state.stops.clear();
        for stream in state.open.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(state);
        // It waits for a connection.
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

fn serve(
    stream: TcpStream,
    connection: usize,
    greeting: &[u8],
    wrap: &Wrap,
    handler: &Handler,
    seen: &Seen,
    stopped: &Receiver<()>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let Some(mut link) = wrap(stream) else { return Ok(()) };
    link.write_all(greeting)?;
    let mut input = Vec::new();
    while let Some(request) = read(&mut *link, &mut input, connection)? {
        // The answer is decided before anybody can know of the request, and sent behind it.
        let reply = handler(&request);
        seen.state.lock().unwrap().requests.push(request);
        seen.changed.notify_all();
        match reply {
            Reply::Keep(bytes) => link.write_all(&bytes)?,
            Reply::Twice(bytes, more) => {
                link.write_all(&bytes)?;
                link.flush()?;
                link.write_all(&more)?;
                seen.state.lock().unwrap().seconds += 1;
                seen.changed.notify_all();
            }
            Reply::Close(bytes) => {
                link.write_all(&bytes)?;
                return link.flush();
            }
            Reply::Endless(bytes, again) => {
                link.write_all(&bytes)?;
                loop {
                    link.write_all(&again)?;
                }
            }
            Reply::Drip(bytes, pause) => {
                for byte in bytes {
                    link.write_all(&[byte])?;
                    // Nothing is ever sent; its end is the end of the server.
                    if stopped.recv_timeout(pause) == Err(std::sync::mpsc::RecvTimeoutError::Disconnected) {
                        return Ok(());
                    }
                }
            }
            Reply::Silence => {
                while link.read(&mut [0; 1024])? > 0 {}
                return Ok(());
            }
        }
        link.flush()?;
    }
    Ok(())
}

/// One request; `None` at the end of the connection.
fn read(link: &mut dyn Link, input: &mut Vec<u8>, connection: usize) -> io::Result<Option<Request>> {
    let mut more = |input: &mut Vec<u8>| {
        let mut buffer = [0; 16 << 10];
        let count = link.read(&mut buffer)?;
        input.extend_from_slice(&buffer[..count]);
        Ok::<bool, io::Error>(count > 0)
    };
    let end = loop {
        match input.windows(4).position(|four| four == b"\r\n\r\n") {
            Some(end) => break end,
            None if more(input)? => {}
            None => return Ok(None),
        }
    };
    let head = String::from_utf8(input[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap().to_owned();
    let header = |line: &str| {
        let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no header: {line}"));
        (name.to_ascii_lowercase(), value.trim().to_owned())
    };
    let headers: Vec<(String, String)> = lines.map(header).collect();
    let length = headers.iter().find(|(name, _)| name == "content-length").map(|(_, value)| value.parse().unwrap());
    let length: usize = length.unwrap_or_else(|| panic!("no length: {head}"));
    let body = end + 4..end + 4 + length;
    while input.len() < body.end {
        if !more(input)? {
            return Ok(None);
        }
    }
    let request = Request { connection, line, headers, body: input[body.clone()].to_vec() };
    input.drain(..body.end);
    Ok(Some(request))
}
