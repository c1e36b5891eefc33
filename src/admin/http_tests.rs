#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::thread::{self, JoinHandle};

use super::*;

/// A server that answers each path with itself, and `/large` with as much as no socket's buffers take.
struct Scene {
    address: SocketAddr,
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

const LARGE: usize = 12 << 20;

impl Scene {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = UnixStream::pair().unwrap();
        // Each large body is one of its own, so that none is counted with another.
        let mut serve = |request: &Request| match request.path.as_str() {
            "/large" => Answer { body: vec![b'x'; LARGE].into(), ..Answer::text("200 OK", "") },
            path => Answer::text("200 OK", path),
        };
        let thread = thread::spawn(move || run(&listener, &stopped, &mut serve));
        Self { address, stop: Some(stop), thread: Some(thread) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Sends this as it is, and reads up to the end.
    fn send(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // It may be closed before all is sent.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn get(&self, path: &str) -> String {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())
    }

    /// It answers a client that asks properly, and soon.
    #[track_caller]
    fn assert_well(&self) {
        let asked = Instant::now();
        let answer = self.get("/well");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n/well\n"), "{answer}");
        assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().unwrap().join();
        assert!(thread::panicking() || matches!(ended, Ok(Ok(()))), "{ended:?}");
    }
}

/// Whether the other side has closed it.
fn is_closed(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    match (&*stream).read(&mut [0; 1024]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

#[test]
fn get_and_head() {
    let scene = Scene::start();
    let answer = scene.get("/a/b?c=d");
    assert!(
        answer.starts_with(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 5\r\nConnection: close\r\n"
        ),
        "{answer}"
    );
    assert!(answer.ends_with("\r\n\r\n/a/b\n"), "{answer}");
    let head = scene.send(b"HEAD /a/b HTTP/1.0\r\n\r\n");
    assert!(head.contains("Content-Length: 5\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    let absolute = scene.send(b"GET http://localhost:1/x HTTP/1.1\r\n\r\n");
    assert!(absolute.ends_with("/x\n"), "{absolute}");
}

#[test]
fn what_is_no_request_is_refused_with_the_reason() {
    let scene = Scene::start();
    let cases: [(&[u8], &str); 8] = [
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 405 "),
        (b"DELETE / HTTP/1.1\r\n\r\n", "HTTP/1.1 405 "),
        (b"GET /\r\n\r\n", "HTTP/1.1 400 "),
        (b"GET / HTTP/2\r\n\r\n", "HTTP/1.1 400 "),
        (b"GET x HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "),
        (b"\xff\xfe / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "),
        (b"\x16\x03\x01\r\n\r\n", "HTTP/1.1 400 "),
        (b"\r\n\r\n", "HTTP/1.1 400 "),
    ];
    for (request, expected) in cases {
        let answer = scene.send(request);
        assert!(answer.starts_with(expected), "{:?}: {answer}", String::from_utf8_lossy(request));
    }
    assert!(scene.send(b"POST / HTTP/1.1\r\n\r\n").contains("\r\nAllow: GET, HEAD\r\n"));
    scene.assert_well();
}

#[test]
fn a_head_without_end_is_cut_off_at_its_limit() {
    let scene = Scene::start();
    let mut stream = scene.connect();
    let chunk = [b'a'; 64 << 10];
    let mut sent = 0_usize;
    // Hundred megabytes, if it took them.
    while sent < 100 << 20 {
        match stream.write(&chunk) {
            Ok(count) => sent += count,
            Err(_) => break,
        }
    }
    assert!(sent < 50 << 20, "it was closed long before: {sent}");
    scene.assert_well();
    // Just above the limit the answer arrives.
    let answer = scene.send(format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(HEAD_BYTES)).as_bytes());
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[test]
fn more_clients_than_places_push_out_the_silent_ones_and_not_those_who_ask() {
    let scene = Scene::start();
    let mut silent: Vec<TcpStream> = Vec::new();
    for _ in 0..CONNECTIONS * 5 {
        silent.push(scene.connect());
        if silent.len().is_multiple_of(50) {
            scene.assert_well();
        }
    }
    scene.assert_well();
    let open = silent.iter().filter(|stream| !is_closed(stream)).count();
    assert!(open <= CONNECTIONS, "{open}");
}

#[test]
fn a_request_that_trickles_is_told_and_closed_in_time_however_often_a_byte_comes() {
    let scene = Scene::start();
    let (mut stream, began) = (scene.connect(), Instant::now());
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let mut answer = Vec::new();
    while began.elapsed() < REQUEST_TIME * 3 {
        let _ = stream.write_all(b"X");
        let mut chunk = [0; 1024];
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&chunk[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    let took = began.elapsed();
    assert!(took >= REQUEST_TIME && took < REQUEST_TIME + Duration::from_secs(4), "{took:?}");
    scene.assert_well();
}

#[test]
fn slow_readers_hold_no_more_than_the_limit() {
    let scene = Scene::start();
    let mut readers: Vec<TcpStream> = Vec::new();
    for _ in 0..6 {
        let mut stream = scene.connect();
        stream.write_all(b"GET /large HTTP/1.1\r\n\r\n").unwrap();
        // Its answer has begun.
        stream.read_exact(&mut [0; 12]).unwrap();
        readers.push(stream);
    }
    scene.assert_well();
    // Two large answers are more than may be pending: all but the last reader were let go.
    let whole = |mut stream: TcpStream| {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        rest.len() > LARGE
    };
    let whole: Vec<bool> = readers.into_iter().map(whole).collect();
    assert_eq!(whole, [false, false, false, false, false, true]);
}

#[test]
fn it_ends_while_clients_are_connected() {
    let scene = Scene::start();
    let silent = scene.connect();
    scene.assert_well();
    drop(scene);
    assert!(is_closed(&silent) || silent.peek(&mut [0]).is_ok_and(|count| count == 0));
}
