//! Asks a running worker for its own state: `GET /status` at its admin port.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::admin::status::Status;

/// For the whole exchange. The worker answers from memory.
const WITHIN: Duration = Duration::from_secs(3);
/// The largest answer that is read: thousands of partitions are some megabytes.
const MOST: usize = 64 << 20;
/// How much is read at a time.
const PIECE: usize = 64 << 10;

/// What the worker at `address` says.
///
/// # Errors
/// Why there is no answer, in words.
pub(super) fn ask(address: SocketAddr) -> Result<Status, String> {
    let answer = exchange(address).map_err(|error| error.to_string())?;
    let text = String::from_utf8(answer).map_err(|_| "its answer is no text".to_owned())?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("its answer is no HTTP")?;
    let first = head.lines().next().unwrap_or_default();
    if first.split(' ').nth(1) != Some("200") {
        return Err(format!("it answers {first:?}"));
    }
    serde_json::from_str(body).map_err(|error| format!("its answer makes no sense: {error}"))
}

/// Writes the question, and reads until the other end closes. HTTP 1.0: the answer comes in one piece.
fn exchange(address: SocketAddr) -> std::io::Result<Vec<u8>> {
    let until = Instant::now() + WITHIN;
    let left = || {
        let left = until.saturating_duration_since(Instant::now());
        // None at all is an invalid argument.
        left.max(Duration::from_millis(1))
    };
    let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no whole answer within {WITHIN:?}"));
    let mut stream = TcpStream::connect_timeout(&address, left())?;
    stream.set_write_timeout(Some(left()))?;
    stream.write_all(format!("GET /status HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let (mut answer, mut piece) = (Vec::new(), vec![0; PIECE]);
    loop {
        if Instant::now() >= until || answer.len() > MOST {
            return Err(late());
        }
        stream.set_read_timeout(Some(left()))?;
        match stream.read(&mut piece) {
            Ok(0) => return Ok(answer),
            Ok(count) => answer.extend_from_slice(piece.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                return Err(late());
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A server that answers one question with these bytes; returns what it was asked.
    fn answered(bytes: &'static [u8]) -> (Result<Status, String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                asked.extend(byte);
            }
            stream.write_all(bytes).unwrap();
            String::from_utf8(asked).unwrap()
        });
        let answer = ask(address);
        (answer, server.join().unwrap())
    }

    #[test]
    fn a_worker_is_asked_for_its_status() {
        let (answer, asked) =
            answered(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\n{\"ready\":true,\"topics\":[{\"topic\":\"t\"}]}");
        assert_eq!(answer.unwrap().topics[0].topic, "t");
        assert!(asked.starts_with("GET /status HTTP/1."), "{asked}");
    }

    #[test]
    fn what_is_no_worker_is_told() {
        assert_eq!(answered(b"HTTP/1.1 404 Not Found\r\n\r\n").0.unwrap_err(), "it answers \"HTTP/1.1 404 Not Found\"");
        assert_eq!(answered(b"SSH-2.0-OpenSSH\r\n").0.unwrap_err(), "its answer is no HTTP");
        assert!(answered(b"HTTP/1.1 200 OK\r\n\r\n<html>").0.unwrap_err().starts_with("its answer makes no sense"));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert!(ask(address).unwrap_err().contains("refused"));
    }
}
