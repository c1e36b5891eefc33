//! A look as metrics, in the text form of OpenMetrics 1.0.
//!
//! Names follow Prometheus' rules: base units, `_total` for what only grows, labels for what is summed
//! over. `etc/worker.rules.yml` and `etc/worker-dashboard.json` use these names; a test compares them.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::{Registry, Unit};

use super::look::{Consumer, Look};
use super::status::{PartitionStatus, SinkStatus, TopicStatus};
use crate::progress::counts::{TIMES, Times, TopicCounts};

/// What [`text`] is, for `Content-Type`.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of a look.
pub(super) fn text(look: Look) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("worker");
    // A topic has some forty lines of hundred bytes.
    let mut text = String::with_capacity(4096 * (look.status.topics.len() + 1));
    registry.register_collector(Box::new(Scrape(look)));
    text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Scrape(Look);

/// One metric's lines, each with its labels.
struct Family<'a>(MetricEncoder<'a>);

impl Family<'_> {
    fn count(&mut self, labels: &impl EncodeLabelSet, value: u64) -> fmt::Result {
        self.0.encode_family(labels)?.encode_counter(&value, None::<&Exemplar<NoLabelSet, u64>>)
    }

    fn level(&mut self, labels: &impl EncodeLabelSet, value: f64) -> fmt::Result {
        self.0.encode_family(labels)?.encode_gauge(&value)
    }

    /// The one value of a metric without labels.
    fn alone(&mut self, value: f64) -> fmt::Result {
        self.0.encode_gauge(&value)
    }

    fn alone_count(&mut self, value: u64) -> fmt::Result {
        self.0.encode_counter(&value, None::<&Exemplar<NoLabelSet, u64>>)
    }

    /// Offsets, which have to be exact.
    fn number(&mut self, labels: &impl EncodeLabelSet, value: i64) -> fmt::Result {
        self.0.encode_family(labels)?.encode_gauge(&value)
    }

    fn times(&mut self, labels: &impl EncodeLabelSet, times: &Times) -> fmt::Result {
        let (sum, counts) = times.get();
        let bounds = TIMES.into_iter().chain([f64::MAX]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        self.0.encode_family(labels)?.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets, None)
    }
}

struct Encoder<'a>(DescriptorEncoder<'a>);

impl Encoder<'_> {
    fn family(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        kind: MetricType,
        write: impl FnOnce(Family<'_>) -> fmt::Result,
    ) -> fmt::Result {
        write(Family(self.0.encode_descriptor(name, help, unit, kind)?))
    }

    fn counter(&mut self, name: &str, help: &str, write: impl FnOnce(Family<'_>) -> fmt::Result) -> fmt::Result {
        self.family(name, help, None, MetricType::Counter, write)
    }

    fn gauge(&mut self, name: &str, help: &str, write: impl FnOnce(Family<'_>) -> fmt::Result) -> fmt::Result {
        self.family(name, help, None, MetricType::Gauge, write)
    }

    fn seconds(&mut self, name: &str, help: &str, write: impl FnOnce(Family<'_>) -> fmt::Result) -> fmt::Result {
        self.family(name, help, Some(&Unit::Seconds), MetricType::Gauge, write)
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (look, mut encoder) = (&self.0, Encoder(encoder));
        process(look, &mut encoder)?;
        topics(look, &mut encoder)?;
        partitions(look, &mut encoder)?;
        consumers(look, &mut encoder)?;
        sinks(look, &mut encoder)
    }
}

fn process(look: &Look, encoder: &mut Encoder<'_>) -> fmt::Result {
    let (status, (answered, failed)) = (&look.status, look.rounds);
    encoder.family("build", "The program", None, MetricType::Info, |mut family| {
        family.0.encode_info(&[("version", status.process.version.as_str())])
    })?;
    encoder.seconds("start_time", "When the process started, since 1970", |mut family| {
        family.alone(seconds(status.process.started_unix_ms))
    })?;
    encoder.gauge("ready", "1 if /readyz says yes", |mut family| family.alone(f64::from(u8::from(status.ready))))?;
    encoder
        .counter("observations", "Looks at the cluster that it answered", |mut family| family.alone_count(answered))?;
    encoder.counter("observation_failures", "Looks at the cluster that it did not answer", |mut family| {
        family.alone_count(failed)
    })?;
    encoder.seconds(
        "observation_age",
        "Time since the cluster was asked for what lag, readable, expired and verdict rest on; since the start if it never answered",
        |mut family| family.alone(seconds(status.observed.age_ms.unwrap_or(status.process.uptime_ms))),
    )
}

fn topics(look: &Look, encoder: &mut Encoder<'_>) -> fmt::Result {
    let each = |mut family: Family<'_>, of: &dyn Fn(&TopicStatus) -> Option<f64>| {
        let mut topics = look.status.topics.iter();
        topics.try_for_each(|topic| match of(topic) {
            Some(value) => family.level(&[("topic", topic.topic.as_str())], value),
            None => Ok(()),
        })
    };
    encoder.gauge("topic_verdict", "1 for the verdict on the topic, in the label verdict", |mut family| {
        look.status.topics.iter().try_for_each(|topic| {
            let word = topic.verdict.as_ref().map_or("none-yet", |verdict| &verdict.word);
            family.level(&[("topic", topic.topic.as_str()), ("verdict", word)], 1.0)
        })
    })?;
    encoder.gauge(
        "topic_stalled",
        "1 if the topic has readable records and has made no progress for watchdog.stall_timeout_ms",
        |family| each(family, &|topic| Some(f64::from(u8::from(topic.stalled)))),
    )?;
    encoder.seconds(
        "progress_age",
        "Time since anything of the topic was read or delivered; since the start of the consumer if nothing was. Grows also while there is nothing to read",
        |family| each(family, &|topic| Some(seconds(topic.progress_age_ms.unwrap_or(topic.consumer.run_age_ms)))),
    )?;
    encoder.gauge("in_flight_records", "Records that are with a sink and not acknowledged", |family| {
        each(family, &|topic| Some(topic.partitions.iter().map(|part| part.in_flight).sum::<u64>() as f64))
    })?;
    type Of = fn(&TopicCounts) -> u64;
    let counters: [(&str, &str, Option<&Unit>, Of); 4] = [
        ("consumed_records", "Records handed over to a sink; again after a failure", None, |c| c.records.get()),
        ("consumed", "Bytes of memory of these records", Some(&Unit::Bytes), |c| c.bytes.get()),
        ("consumed_batches", "Batches of these records", None, |c| c.batches.get()),
        (
            "delivered_records",
            "Records that are done: written and flushed by a sink, or given up by on_failure",
            None,
            |c| c.delivered.get(),
        ),
    ];
    for (name, help, unit, of) in counters {
        encoder.family(name, help, unit, MetricType::Counter, |mut family| {
            with_counts(look, |topic, counts| family.count(&[("topic", topic)], of(counts)))
        })?;
    }
    encoder.gauge(
        "topic_stopped",
        "1 if a record that the sink did not take has stopped the topic (on_failure = \"stop\")",
        |family| each(family, &|topic| Some(f64::from(u8::from(topic.stopped.is_some())))),
    )?;
    encoder.counter(
        "given_up_records",
        "Records that the sink did not take, in the label outcome: dead_letter, drop",
        |mut family| {
            look.status.topics.iter().try_for_each(|topic| {
                let counts = [("dead_letter", topic.dead_letters), ("drop", topic.dropped)];
                counts.into_iter().try_for_each(|(outcome, count)| {
                    family.count(&[("topic", topic.topic.as_str()), ("outcome", outcome)], count)
                })
            })
        },
    )?;
    encoder.counter(
        "passed_offsets",
        "Offsets that were passed without a record, in the label reason: expired (Kafka's retention took them unread), reset (not read, by choice), absent (compaction, transaction markers)",
        |mut family| {
            with_counts(look, |topic, counts| {
                let reasons = [("expired", &counts.expired), ("reset", &counts.reset), ("absent", &counts.absent)];
                reasons.into_iter().try_for_each(|(reason, count)| {
                    family.count(&[("topic", topic), ("reason", reason)], count.get())
                })
            })
        },
    )
}

fn with_counts(look: &Look, mut write: impl FnMut(&str, &TopicCounts) -> fmt::Result) -> fmt::Result {
    look.consumers.iter().try_for_each(|consumer| {
        let mut topics = look.status.topics[consumer.topics.clone()].iter();
        topics.try_for_each(|topic| match consumer.counts.topic(&topic.topic) {
            Some(counts) => write(&topic.topic, counts),
            None => Ok(()),
        })
    })
}

fn partitions(look: &Look, encoder: &mut Encoder<'_>) -> fmt::Result {
    type Of = fn(&PartitionStatus) -> Option<i64>;
    let wide = |number: Option<u64>| number.map(|n| i64::try_from(n).unwrap_or(i64::MAX));
    let gauges: [(&str, &str, Of); 7] = [
        ("lag_offsets", "LAG: log end - committed offset, as kafka-consumer-groups has it; may be negative", |p| p.lag),
        ("committed_offset", "CURRENT-OFFSET: what the group has committed", |p| p.committed),
        ("log_start_offset", "LOG-START-OFFSET", |p| p.log_start),
        ("log_end_offset", "LOG-END-OFFSET", |p| p.log_end),
        ("position_offset", "The next offset to be handed over to the sink", |p| p.position),
        ("acknowledged_offset", "Everything below it is delivered", |p| p.acknowledged),
        ("partition_failing", "1 if the partition can't be read at present", |p| Some(i64::from(p.trouble.is_some()))),
    ];
    let mut each = |name: &str, help: &str, of: &dyn Fn(&PartitionStatus) -> Option<i64>| {
        encoder.gauge(name, help, |mut family| {
            let all = look.status.topics.iter().flat_map(|t| t.partitions.iter().map(move |p| (t.topic.as_str(), p)));
            all.filter_map(|(topic, part)| Some((topic, part.partition, of(part)?))).try_for_each(
                |(topic, number, value)| {
                    let number = number.to_string();
                    family.number(&[("topic", topic), ("partition", number.as_str())], value)
                },
            )
        })
    };
    for (name, help, of) in gauges {
        each(name, help, &of)?;
    }
    each("readable_offsets", "READABLE: log end - max(committed offset, log start), never negative", &|p| {
        wide(p.readable)
    })?;
    each("expired_offsets", "EXPIRED: offsets between the committed one and the log start", &|p| wide(p.expired))
}

fn consumers(look: &Look, encoder: &mut Encoder<'_>) -> fmt::Result {
    type Of = fn(&Consumer) -> u64;
    let counters: [(&str, &str, Of); 3] = [
        ("consumer_restarts", "How often the consumer was started again", |c| c.status.run.into()),
        ("commit_failures", "Commits that failed; each is tried again", |c| c.counts.commit_failures.get()),
        ("consumer_faults", "How often the client, a partition or a commit failed; each is tried again", |c| {
            c.counts.faults()
        }),
    ];
    for (name, help, of) in counters {
        encoder.counter(name, help, |mut family| {
            look.consumers.iter().try_for_each(|one| family.count(&[("group", one.group.as_str())], of(one)))
        })?;
    }
    let gauges: [(&str, &str, Of); 6] = [
        ("in_flight_batches", "Batches that are with a sink and not acknowledged", |c| c.status.batches_in_flight),
        ("in_flight_batches_limit", "How many of them there may be", |c| c.status.batches_budget),
        ("consumer_full", "1 if what is in flight takes all of the budget, so that nothing is fetched", |c| {
            c.status.full_for_ms.is_some().into()
        }),
        ("consumer_failing", "1 if the client as a whole is in trouble", |c| c.status.trouble.is_some().into()),
        ("commits_failing", "1 if commits fail", |c| c.status.commit_trouble.is_some().into()),
        ("group_shared", "1 if a commit that is not this worker's was found in the group lately", |c| {
            c.status.shared_group.is_some().into()
        }),
    ];
    for (name, help, of) in gauges {
        encoder.gauge(name, help, |mut family| {
            let mut all = look.consumers.iter();
            all.try_for_each(|one| family.level(&[("group", one.group.as_str())], of(one) as f64))
        })?;
    }
    type TimesOf = fn(&Consumer) -> &Times;
    let times: [(&str, &str, TimesOf); 2] = [
        ("fetch_duration", "How long answered fetches took, the broker's waiting for data included", |c| {
            &c.counts.fetches
        }),
        ("commit_duration", "How long successful commits took", |c| &c.counts.commits),
    ];
    for (name, help, of) in times {
        encoder.family(name, help, Some(&Unit::Seconds), MetricType::Histogram, |mut family| {
            look.consumers.iter().try_for_each(|one| family.times(&[("group", one.group.as_str())], of(one)))
        })?;
    }
    Ok(())
}

fn sinks(look: &Look, encoder: &mut Encoder<'_>) -> fmt::Result {
    let labels = |sink: &SinkStatus| [("sink", sink.sink.clone())];
    let sinks = &look.status.sinks;
    encoder.gauge("sink_failing", "1 if the sink fails", |mut family| {
        sinks.iter().try_for_each(|sink| family.level(&labels(sink), f64::from(u8::from(sink.trouble.is_some()))))
    })?;
    encoder.seconds(
        "sink_busy",
        "How long the sink has been at its present work; 0 if it has none",
        |mut family| {
            sinks.iter().try_for_each(|sink| family.level(&labels(sink), seconds(sink.busy_for_ms.unwrap_or(0))))
        },
    )?;
    encoder.counter("sink_failures", "How often a write or a flush failed; each is tried again", |mut family| {
        let mut all = sinks.iter().zip(&look.sink_failures);
        all.try_for_each(|(sink, failures)| family.count(&labels(sink), *failures))
    })
}
