//! A client of the worker's admin, down to the bytes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use worker::admin::status::Status;

use super::worker::{PATIENCE, Worker};

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// Where the worker serves, as its log says.
#[track_caller]
pub fn address(worker: &Worker) -> SocketAddr {
    let line = worker.wait_words(&["admin listens address="]);
    let (_, rest) = line.split_once("address=").unwrap();
    rest.split(' ').next().unwrap().parse().unwrap()
}

/// A connection that waits for nothing longer than a test does.
#[track_caller]
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends a request as it is, and reads the whole answer.
#[track_caller]
pub fn send(address: SocketAddr, request: &str) -> Answer {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

#[track_caller]
pub fn get(address: SocketAddr, path: &str) -> Answer {
    send(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n"))
}

#[track_caller]
pub fn status(address: SocketAddr) -> Status {
    serde_json::from_str(&get(address, "/status").body).unwrap()
}

/// The value of the one line of the metrics that begins so, up to the blank.
#[track_caller]
pub fn metric(address: SocketAddr, name: &str) -> Option<f64> {
    let text = get(address, "/metrics").body;
    let mut found = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = found.next()?.parse().unwrap();
    assert_eq!(found.next(), None, "{name} stands there twice");
    Some(value)
}
