//! How fast the sink is. Not a check, so it is not run by itself:
//! `cargo test --release --lib throughput -- --ignored --nocapture`

use std::time::Instant;

use super::*;

#[test]
#[ignore = "measures; says nothing about right or wrong"]
fn throughput() {
    const BATCH: usize = 500;
    const BATCHES: usize = 4_000;
    let content = |fill: &dyn Fn(usize) -> Vec<u8>| {
        let contents =
            (0..BATCH).map(|number| (Some(b"key-0001".to_vec()), Some(fill(number)), Some(1_700_000_000_000)));
        records_from(0, contents.collect())
    };
    let text = content(&|number| format!("{number:0100}").into_bytes());
    let object = content(&|number| format!("{{\"id\":{number:06},\"station\":\"{}\"}}", "a".repeat(74)).into_bytes());
    let bytes = content(&|_| vec![0xff; 100]);
    for (name, records) in [("text", &text), ("JSON object", &object), ("no UTF-8", &bytes)] {
        for format in [Format::Json, Format::Raw] {
            for flush_every in [20, 400] {
                let (_directory, path) = place();
                let mut sink = FileSink::open(&path, format, None).unwrap();
                let start = Instant::now();
                for batch in 1..=BATCHES {
                    sink.write(&orders(), records).unwrap();
                    if batch % flush_every == 0 {
                        sink.flush().unwrap();
                    }
                }
                let rate = (BATCH * BATCHES) as f64 / start.elapsed().as_secs_f64();
                println!(
                    "{format:?}, 100 B of {name}, flush every {} records: {rate:.0} records/s",
                    flush_every * BATCH
                );
            }
            let mut sink = FileSink::open("/dev/null", format, None).unwrap();
            let start = Instant::now();
            for _ in 0..BATCHES {
                sink.write(&orders(), records).unwrap();
            }
            sink.flush().unwrap();
            let rate = (BATCH * BATCHES) as f64 / start.elapsed().as_secs_f64();
            println!("{format:?}, 100 B of {name}, to /dev/null: {rate:.0} records/s");
        }
    }
}
