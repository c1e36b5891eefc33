//! Services that lie, hang, die: nothing is lost, memory is bounded, and a line says what it was.

use super::*;

/// The first requests of the daemon are answered so; then the service is good.
#[test]
fn services_that_lie_lose_nothing_and_a_line_says_how() {
    let bytes = |text: &str| text.as_bytes().to_vec();
    for (reply, words) in [
        (Reply::Silence, "no answer within timeout_ms=400"),
        (Reply::Close(bytes("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")), "before its answer was whole"),
        (Reply::Close(bytes("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")), "its answer"),
        (Reply::Endless(bytes("HTTP/1.1 200 OK\r\nX: "), vec![b'x'; 1 << 20]), "its answer"),
        (Reply::Endless(vec![], bytes("HTTP/1.1 100 Continue\r\n\r\n")), "interim answers"),
        (
            Reply::Endless(bytes("HTTP/1.1 500 X\r\nContent-Length: 999999999999\r\n\r\n"), vec![b'x'; 1 << 20]),
            "500 Internal Server Error: 'xxx",
        ),
        (Reply::Drip(vec![b'x'; 1 << 16], Duration::from_millis(10)), "its answer"),
        (
            Reply::Drip(
                bytes(&format!("HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{}", "x".repeat(9999))),
                Duration::from_millis(10),
            ),
            "its answer was not whole within timeout_ms=400",
        ),
        (Reply::Close(bytes("<html>")), "it begins with '<html>'"),
        (
            answer(307, "Location: http://127.0.0.1:9/elsewhere\r\n", ""),
            "Location 'http://127.0.0.1:9/elsewhere'; a redirect is not followed",
        ),
    ] {
        let told = format!("{reply:?}").chars().take(100).collect::<String>();
        let bed = Bed::new(&["t"]);
        bed.fill("t", 200);
        let count = AtomicUsize::new(0);
        let web = Web::start(move |_| if count.fetch_add(1, Ordering::Relaxed) < 2 { reply.clone() } else { ok() });
        let worker = bed.started(&config(&bed, &["t"], &web, "json").set("sink.w", "timeout_ms", 400));
        let line = worker.wait_words(&["WARN", "sink fails, its topics wait sink=w"]);
        assert!(line.contains(words) && line.len() < 900, "{told}: {line}");
        bed.await_committed("t", 0, 200);
        assert!(worker.peak_rss() < 100 << 20, "{told}: {} bytes", worker.peak_rss());
        bed.stop(worker);
        let requests = web.requests();
        assert_eq!(offsets(&requests[2..]), (0..200).collect::<Vec<_>>(), "{told}");
    }
}

/// Its answers are whole and far too long: they acknowledge, and are not kept.
#[test]
fn an_endless_body_takes_no_memory() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 300);
    let reply = Reply::Endless(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_vec(), vec![b'x'; 1 << 20]);
    let web = Web::start(move |_| reply.clone());
    let worker = bed.started(&config(&bed, &["t"], &web, "record"));
    bed.await_committed("t", 0, 300);
    assert!(worker.peak_rss() < 100 << 20, "{} bytes", worker.peak_rss());
    let ended = bed.stop(worker);
    assert_eq!(offsets(&web.requests()), (0..300).collect::<Vec<_>>());
    assert_eq!(loud(&ended.log), [""; 0]);
}

/// Numbers that are always the same (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % below
    }
}

/// What all services together have taken, by topic, in order.
type Taken = Arc<Mutex<Vec<(String, i64)>>>;

/// Takes records, and answers one of eight requests wrongly, after it has taken its records or before.
fn moody(taken: &Taken, seed: u64) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
    let (taken, dice) = (Arc::clone(taken), Mutex::new(Dice(seed)));
    move |request| {
        let (mood, mut all) = (dice.lock().unwrap().roll(40), taken.lock().unwrap());
        if mood > 2 {
            all.extend(coordinates(request));
        }
        match mood {
            0 => answer(503, "", ""),
            1 | 3 => Reply::Close(vec![]),
            2 | 4 => Reply::Close(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab".to_vec()),
            _ => ok(),
        }
    }
}

/// The service and the worker are killed at changing moments, under load.
#[test]
fn kills_of_service_and_worker_lose_nothing_and_keep_the_order() {
    let topics = ["a", "b"];
    let bed = Bed::new(&topics);
    for _ in 0..30 {
        topics.iter().for_each(|topic| bed.fill(topic, 500));
    }
    let taken = Taken::default();
    let mut web = Web::start(moody(&taken, 7));
    let address = web.address();
    let config = config(&bed, &topics, &web, "ndjson").set("sink.w", "max_batch_records", 50);
    let (mut dice, mut kills) = (Dice(99), (0, 0));
    let mut worker = bed.started(&config);
    let done = || topics.iter().all(|topic| bed.committed(topic) == Some(15_000));
    let until = Instant::now() + PATIENCE * 3;
    while !done() {
        assert!(Instant::now() < until, "{kills:?}");
        let goal = taken.lock().unwrap().len() + 200 + dice.roll(2_000);
        while taken.lock().unwrap().len() < goal && !done() {
            assert!(Instant::now() < until, "{kills:?}");
            thread::yield_now();
        }
        if done() {
            break;
        }
        if dice.roll(3) == 0 {
            worker.kill9();
            worker = bed.started(&config);
            kills.1 += 1;
        } else {
            drop(web);
            web = Web::start_at(address, moody(&taken, 1 + kills.0));
            kills.0 += 1;
        }
    }
    bed.stop(worker);
    let taken = taken.lock().unwrap();
    let mut duplicates = 0;
    for topic in topics {
        let mut next = 0;
        for (_, offset) in taken.iter().filter(|(own, _)| own == topic) {
            assert!(*offset <= next, "{topic}: {offset} came before {next}");
            duplicates += usize::from(*offset < next);
            next = next.max(offset + 1);
        }
        assert_eq!(next, 15_000, "{topic}");
    }
    println!(
        "kills of the service {}, of the worker {}; missing 0, duplicates {duplicates} of 30000",
        kills.0, kills.1
    );
    assert!(kills.0 >= 3 && kills.1 >= 1, "{kills:?}");
}

/// A service that is silent holds a write up to timeout_ms, and a stop no longer than it may take.
#[test]
fn a_stop_does_not_wait_for_a_silent_service() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 10);
    let web = Web::start(|_| Reply::Silence);
    let worker = bed.started(&config(&bed, &["t"], &web, "json").set("shutdown", "drain_timeout_ms", 300));
    web.wait_requests(1, PATIENCE);
    let begun = Instant::now();
    let ended = worker.stop();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(ended.sums("t"), "delivered=0 committed=0 in_flight=10 expired=0 reset=0");
    assert_eq!(bed.committed("t"), Some(0));
}

/// It sends its second answer when it likes; what it refuses arrives all the same.
#[test]
fn a_service_that_answers_twice_is_told_of_and_loses_nothing() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 50);
    let fine = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec();
    let (busy, taken) = (AtomicUsize::new(0), Arc::new(Mutex::new(Vec::new())));
    let own = Arc::clone(&taken);
    let web = Web::start(move |request| {
        // Of each four requests behind the first ones, one is refused.
        if request.number("kafka-offset") > 9 && busy.fetch_add(1, Ordering::Relaxed) % 4 == 0 {
            return answer(503, "", "");
        }
        own.lock().unwrap().push(request.number("kafka-offset"));
        Reply::Twice(fine.clone(), fine.clone())
    });
    let worker = bed.started(&config(&bed, &["t"], &web, "record"));
    web.wait_seconds(50, PATIENCE);
    bed.await_committed("t", 0, 50);
    let ended = bed.stop(worker);
    let line = format!(
        "the server sends more than the answer, each request gets a connection of its own sink=w url={}",
        web.url()
    );
    assert_eq!(ended.lines_with(&["WARN", &line]).len(), 1, "{}", ended.log.join("\n"));
    let mut taken = taken.lock().unwrap().clone();
    taken.dedup();
    assert_eq!(taken, (0..50).collect::<Vec<_>>());
}
