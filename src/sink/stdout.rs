//! The sink `stdout`: records as lines on standard output, or on any other stream.
//!
//! What is to be known about streams:
//! - A pipe whose reader is there but does not read blocks `write` **without a bound**, and with it
//!   the lane's thread and its part of a shutdown. That is what a pipe is for; a destination that
//!   must never block is a file.
//! - A reader that has gone (`worker … | head`) is a reason to retry, not to drop records: nothing is
//!   acknowledged, the log says so, and a stop works as ever.
//! - What was written can't be taken back. Records that are given again after a failed flush stand
//!   in the stream twice, as whole lines each.
//!
//! What always holds: lines are whole and in order. The rest of a line that was written in part is
//! kept, and goes out before anything else does.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use super::format::Encoder;
use super::{Format, Sink, Stopped, Why};
use crate::record::{Records, TopicPartition};

/// How much is gathered before it goes out, in bytes; a batch that is smaller goes out at its end.
/// It bounds the memory for a batch of large records. Linux gives a pipe a buffer of 64 KiB.
const CHUNK: usize = 256 << 10;

/// Writes records to a stream.
#[derive(Debug)]
pub struct StdoutSink<W> {
    out: W,
    encoder: Encoder,
    /// Between two calls: the rest of a line that was written in part, else nothing.
    buffer: Vec<u8>,
    /// Where in `buffer` each record ends.
    ends: Vec<usize>,
}

impl StdoutSink<File> {
    /// Writes to standard output, without the buffer of [`io::stdout`], which would hide how much of
    /// a failed write went out.
    ///
    /// # Errors
    /// Standard output is closed, or no descriptor is left.
    pub fn stdout(format: Format) -> io::Result<Self> {
        Ok(Self::new(File::from(io::stdout().as_fd().try_clone_to_owned()?), format))
    }
}

impl<W: Write> StdoutSink<W> {
    /// Writes to `out`, which should have no buffer of its own.
    pub const fn new(out: W, format: Format) -> Self {
        Self { out, encoder: Encoder::new(format), buffer: Vec::new(), ends: Vec::new() }
    }

    /// Writes out what is in `buffer`. Says how many of the records that end in it were taken, if not
    /// all: one of which a part went out is taken, and its rest stays in `buffer`.
    fn put(&mut self) -> Result<(), (usize, io::Error)> {
        let (put, result) = put(&mut self.out, &self.buffer);
        let error = match result {
            Ok(()) => {
                self.buffer.clear();
                self.ends.clear();
                return Ok(());
            }
            Err(error) => error,
        };
        let whole = self.ends.partition_point(|&end| end <= put);
        let begins = whole.checked_sub(1).map_or(0, |last| self.ends[last]);
        let done = if put > begins {
            self.buffer.truncate(self.ends.get(whole).copied().unwrap_or(self.buffer.len()));
            self.buffer.drain(..put);
            whole + 1
        } else {
            self.buffer.clear();
            whole
        };
        self.ends.clear();
        Err((done, error))
    }

    /// Writes out the rest of the line that was written in part, if there is one.
    fn finish_line(&mut self) -> io::Result<()> {
        let (put, result) = put(&mut self.out, &self.buffer);
        self.buffer.drain(..put);
        result
    }
}

/// Writes as much of `bytes` as it can, and says how much that was.
fn put(out: &mut impl Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut put = 0;
    while put < bytes.len() {
        match out.write(&bytes[put..]) {
            Ok(0) => return (put, Err(io::ErrorKind::WriteZero.into())),
            Ok(some) => put += some,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (put, Err(error)),
        }
    }
    (put, Ok(()))
}

/// The failure in words for the log.
fn explain(error: &io::Error) -> String {
    let (what, hint) = match error.kind() {
        io::ErrorKind::BrokenPipe => {
            ("its reader has gone", "restart the worker with one that stays, or choose another sink")
        }
        io::ErrorKind::WouldBlock => ("its reader does not keep up", "nothing has to be done if it goes on reading"),
        _ => ("a write failed", "look at what standard output is connected to"),
    };
    format!("standard output: {what}: {error}; {hint}; the records wait and are given again")
}

impl<W: Write + Send> Sink for StdoutSink<W> {
    fn write(&mut self, partition: &TopicPartition, records: &Records) -> Result<(), Stopped> {
        let stopped = |done, error: &io::Error| Stopped { done, why: Why::Retry(explain(error)) };
        self.finish_line().map_err(|error| stopped(0, &error))?;
        self.encoder.begin(partition);
        let mut gone_out = 0;
        for (index, record) in records.iter().enumerate() {
            self.encoder.append(&mut self.buffer, &record);
            self.ends.push(self.buffer.len());
            if self.buffer.len() >= CHUNK || index + 1 == records.len() {
                self.put().map_err(|(done, error)| stopped(gone_out + done, &error))?;
                gone_out = index + 1;
            }
        }
        self.buffer.shrink_to(2 * CHUNK);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), String> {
        self.finish_line().and_then(|()| self.out.flush()).map_err(|error| explain(&error))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::sink::format::testing::records;

    /// A stream that takes as many bytes as its plan says at a time, or fails; all once it is over.
    #[derive(Default)]
    struct Stream {
        plan: VecDeque<Result<usize, io::ErrorKind>>,
        text: Vec<u8>,
        writes: usize,
    }

    impl Write for Stream {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.writes += 1;
            let some = self.plan.pop_front().unwrap_or(Ok(usize::MAX))?.min(bytes.len());
            self.text.extend_from_slice(&bytes[..some]);
            Ok(some)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.plan.pop_front().unwrap_or(Ok(0)).map(|_| ()).map_err(io::Error::from)
        }
    }

    fn orders() -> TopicPartition {
        TopicPartition::new("orders", 0)
    }

    #[test]
    fn a_batch_goes_out_in_one_write() {
        let mut sink = StdoutSink::new(Stream::default(), Format::Raw);
        sink.write(&orders(), &records(["a", "b", "c"])).unwrap();
        assert_eq!((sink.out.text.as_slice(), sink.out.writes), (b"a\nb\nc\n".as_slice(), 1));
        sink.flush().unwrap();
    }

    #[test]
    fn json_lines_name_their_records() {
        let mut sink = StdoutSink::new(Vec::new(), Format::Json);
        sink.write(&orders(), &records(["a"])).unwrap();
        assert_eq!(sink.out, b"{\"topic\":\"orders\",\"partition\":0,\"offset\":0,\"key\":null,\"value\":\"a\"}\n");
    }

    #[test]
    fn a_reader_that_has_gone_is_retried_and_said() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut sink = StdoutSink::new(writer, Format::Raw);
        let stopped = sink.write(&orders(), &records(["a"])).unwrap_err();
        let Stopped { done: 0, why: Why::Retry(text) } = stopped else { panic!("{stopped:?}") };
        assert!(text.starts_with("standard output: its reader has gone: Broken pipe"), "{text}");
        // Nothing of it is waiting, so that a stop is not held up.
        assert_eq!(sink.flush(), Ok(()));
    }

    #[test]
    fn the_rest_of_a_line_goes_out_first() {
        let plan = [Ok(4), Err(io::ErrorKind::WouldBlock), Err(io::ErrorKind::WouldBlock)];
        let mut sink = StdoutSink::new(Stream { plan: plan.into(), ..Stream::default() }, Format::Raw);
        let stopped = sink.write(&orders(), &records(["aa", "bb", "cc"])).unwrap_err();
        assert_eq!((stopped.done, sink.out.text.as_slice()), (2, b"aa\nb".as_slice()));
        assert!(sink.flush().unwrap_err().contains("does not keep up"));
        sink.write(&orders(), &records(["cc"])).unwrap();
        assert_eq!(sink.out.text, b"aa\nbb\ncc\n");
    }

    proptest! {
        #[test]
        fn whatever_a_stream_does_each_record_stands_in_it_once(
            values in prop::collection::vec("[a-z\n]{0,12}", 1..20),
            plan in prop::collection::vec(
                prop_oneof![
                    (1..30_usize).prop_map(Ok),
                    Just(Err(io::ErrorKind::WouldBlock)),
                    Just(Err(io::ErrorKind::Interrupted)),
                ],
                0..40,
            ),
        ) {
            let all = records(&values);
            let attempts = plan.len() + 1;
            let mut sink = StdoutSink::new(Stream { plan: plan.into(), ..Stream::default() }, Format::Raw);
            let mut done = 0;
            for _ in 0..attempts {
                match sink.write(&orders(), &all.slice(done..all.len())) {
                    Ok(()) => done = all.len(),
                    Err(stopped) => done += stopped.done,
                }
            }
            prop_assert_eq!(done, all.len());
            // One call may be needed for the rest of the last line.
            while sink.flush().is_err() {}
            let expected: String = values.iter().map(|value| format!("{value}\n")).collect();
            prop_assert_eq!(String::from_utf8(sink.out.text).unwrap(), expected);
        }
    }
}
