//! A network that can be bad: a TCP proxy in front of one broker.
//!
//! Owns its listener, its connections and the two threads of each. What it does is a state that a test
//! changes at any time; every thread that holds bytes back waits for its change. Nothing here reads what
//! it carries. Dropped, it closes everything.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// What becomes of bytes and connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// They pass.
    Good,
    /// Each piece of an answer (up to 64 KiB) comes later by this time.
    Slow(Duration),
    /// Nothing gets through in either direction. Connections are accepted and stay open; what was held
    /// back goes on when it is over, as TCP sends again what was lost.
    BlackHole,
    /// Every connection is closed as soon as it is opened; those that are open already stay.
    Refuses,
}

/// The proxy. Its port is where clients connect, and what the broker is to advertise.
pub struct Proxy {
    shared: Arc<Shared>,
    port: u16,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    network: Network,
    broker: Option<String>,
    /// Both ends of every connection, by its number.
    open: Vec<(u64, TcpStream, TcpStream)>,
    connections: u64,
    /// Connections up to this number are dead for good.
    forgotten: u64,
    /// How much of a piece of an answer passes before its connection is closed: for the next piece.
    cut_next: Option<usize>,
    cuts: u64,
    closed: bool,
}

/// The larger ones of a fetch's answers come in several pieces.
const PIECE: usize = 64 << 10;

impl Proxy {
    /// Listens at a free port of 127.0.0.1; refuses until it is told where it leads.
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = State {
            network: Network::Good,
            broker: None,
            open: Vec::new(),
            connections: 0,
            forgotten: 0,
            cut_next: None,
            cuts: 0,
            closed: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let own = Arc::clone(&shared);
        spawn(format!("proxy {port}"), move || {
            for client in listener.incoming() {
                if own.state.lock().unwrap().closed {
                    return;
                }
                // A client that is gone again already is no concern of the others.
                if let Ok(client) = client {
                    Shared::accept(&own, client);
                }
            }
        });
        Self { shared, port }
    }

    /// `host:port` where it listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where new connections lead from now on: `host:port`.
    pub fn lead_to(&self, broker: &str) {
        self.shared.state.lock().unwrap().broker = Some(broker.to_owned());
    }

    /// Changes the network, for open connections too.
    pub fn set(&self, network: Network) {
        self.shared.state.lock().unwrap().network = network;
        self.shared.changed.notify_all();
    }

    /// Carries nothing more for any connection there is, without a word to either end, as a NAT does that has
    /// lost its table.
    pub fn forget(&self) {
        let mut state = self.shared.state.lock().unwrap();
        state.forgotten = state.connections;
    }

    /// Closes every open connection, at once.
    pub fn cut(&self) {
        let mut state = self.shared.state.lock().unwrap();
        state.cuts += state.open.len() as u64;
        state.open.drain(..).for_each(|(_, client, broker)| close(&client, &broker));
    }

    /// Closes the connection that brings the next piece of an answer, after so many bytes of it; the last
    /// byte never passes.
    pub fn cut_in_answer(&self, bytes: usize) {
        self.shared.state.lock().unwrap().cut_next = Some(bytes);
    }

    /// How many connections were closed by [`cut`](Self::cut) and [`cut_in_answer`](Self::cut_in_answer).
    pub fn cuts(&self) -> u64 {
        self.shared.state.lock().unwrap().cuts
    }

    /// How many connections there have been, refused ones included.
    pub fn connections(&self) -> u64 {
        self.shared.state.lock().unwrap().connections
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        {
            let mut state = self.shared.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            state.closed = true;
            state.open.drain(..).for_each(|(_, client, broker)| close(&client, &broker));
        }
        self.shared.changed.notify_all();
        // Wakes the listener, so that it sees that it is over.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn accept(shared: &Arc<Self>, client: TcpStream) {
        let (number, broker) = {
            let mut state = shared.state.lock().unwrap();
            state.connections += 1;
            (state.connections, state.broker.clone().filter(|_| state.network != Network::Refuses))
        };
        // Dropped means closed.
        let Some(broker) = broker else { return };
        let own = Arc::clone(shared);
        spawn(format!("proxy connection {number}"), move || {
            // Behind a black hole the broker does not hear of it before that is over.
            if !own.pass(number, None) {
                return;
            }
            // A broker that is down refuses, and so do we.
            let Ok(broker) = TcpStream::connect(broker) else { return };
            let _ = (client.set_nodelay(true), broker.set_nodelay(true));
            let clones = || Some((client.try_clone().ok()?, broker.try_clone().ok()?));
            let (Some(kept), Some(up)) = (clones(), clones()) else { return };
            {
                let mut state = own.state.lock().unwrap();
                if state.closed {
                    return;
                }
                state.open.push((number, kept.0, kept.1));
            }
            let requests = Arc::clone(&own);
            spawn(format!("proxy requests {number}"), move || requests.carry(number, up.0, up.1, false));
            own.carry(number, broker, client, true);
        });
    }

    /// Carries the bytes of one direction until either end is closed.
    fn carry(&self, number: u64, mut from: TcpStream, mut to: TcpStream, answers: bool) {
        let mut piece = vec![0; PIECE];
        while let Ok(length @ 1..) = from.read(&mut piece) {
            let mut slow = None;
            if answers && let Network::Slow(time) = self.state.lock().unwrap().network {
                slow = Some(time);
            }
            if !self.pass(number, slow) {
                break;
            }
            let cut = if answers { self.state.lock().unwrap().cut_next.take() } else { None };
            let length = cut.map_or(length, |bytes| bytes.min(length - 1));
            if to.write_all(&piece[..length]).is_err() {
                break;
            }
            if cut.is_some() {
                self.state.lock().unwrap().cuts += 1;
                break;
            }
        }
        close(&from, &to);
        self.state.lock().unwrap().open.retain(|(open, ..)| *open != number);
    }

    /// Returns when bytes may pass, after `slow` at the earliest; `false`: the proxy is closed.
    fn pass(&self, number: u64, slow: Option<Duration>) -> bool {
        let mut state = self.state.lock().unwrap();
        if let Some(time) = slow {
            state = self.changed.wait_timeout_while(state, time, |state| !state.closed).unwrap().0;
        }
        let held =
            |state: &mut State| !state.closed && (state.network == Network::BlackHole || number <= state.forgotten);
        state = self.changed.wait_while(state, held).unwrap();
        !state.closed
    }
}

fn close(one: &TcpStream, other: &TcpStream) {
    // One that the peer has closed already can't be shut down again.
    let _ = (one.shutdown(Shutdown::Both), other.shutdown(Shutdown::Both));
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) {
    thread::Builder::new().name(name).spawn(run).unwrap();
}

#[cfg(test)]
mod tests {
    use super::{Network, Proxy};
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    /// A client's and a broker's end, through a proxy.
    fn pair(proxy: &Proxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(proxy.address()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    fn bed() -> (Proxy, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::new();
        proxy.lead_to(&listener.local_addr().unwrap().to_string());
        (proxy, listener)
    }

    #[test]
    fn a_proxy_carries_cuts_and_refuses() {
        let (proxy, listener) = bed();
        let (mut client, mut broker) = pair(&proxy, &listener);
        let mut four = [0; 4];
        client.write_all(b"ping").unwrap();
        broker.read_exact(&mut four).unwrap();
        assert_eq!(&four, b"ping");

        proxy.cut_in_answer(3);
        broker.write_all(b"pong").unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!((answer.as_slice(), proxy.cuts()), (&b"pon"[..], 1));

        let (mut client, mut broker) = pair(&proxy, &listener);
        // Once something has come through, the connection is one that can be cut.
        broker.write_all(b"pong").unwrap();
        client.read_exact(&mut four).unwrap();
        proxy.cut();
        assert_eq!((client.read(&mut four).unwrap(), proxy.cuts()), (0, 2));

        proxy.set(Network::Refuses);
        let mut client = TcpStream::connect(proxy.address()).unwrap();
        assert!(matches!(client.read(&mut four), Ok(0) | Err(_)));
        assert_eq!(proxy.connections(), 3);
    }

    #[test]
    fn a_proxy_holds_back_and_lets_go() {
        let (proxy, listener) = bed();
        let (mut client, mut broker) = pair(&proxy, &listener);
        let mut four = [0; 4];
        proxy.set(Network::BlackHole);
        broker.write_all(b"late").unwrap();
        client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let nothing = client.read(&mut four).unwrap_err();
        assert!(matches!(nothing.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{nothing}");
        client.set_read_timeout(None).unwrap();
        proxy.set(Network::Slow(Duration::from_millis(60)));
        client.read_exact(&mut four).unwrap();
        assert_eq!(&four, b"late");
        let began = Instant::now();
        broker.write_all(b"slow").unwrap();
        client.read_exact(&mut four).unwrap();
        assert!(began.elapsed() >= Duration::from_millis(60), "{:?}", began.elapsed());
        drop(proxy);
        assert_eq!(client.read(&mut four).unwrap(), 0);
    }
}
