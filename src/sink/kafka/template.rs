//! Where a record goes: the name of the topic and the number of the partition. Pure.

use std::fmt;

use crate::record::{Record, TopicPartition};

/// A topic's name in which `{topic}` and `{partition}` stand for those that a record comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Topic,
    Partition,
}

impl Template {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it, behind its name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            let word = from.strip_prefix('{').and_then(|from| from.split_once('}'));
            let (piece, behind) = match word {
                Some(("topic", behind)) => (Piece::Topic, behind),
                Some(("partition", behind)) => (Piece::Partition, behind),
                _ => {
                    let words = "of words in braces there are {topic} and {partition}, and no other";
                    return Err(format!("is {text:?}; {words}"));
                }
            };
            pieces.push(piece);
            rest = behind;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self(pieces))
    }

    /// The topic for the records of a partition.
    pub fn name(&self, of: &TopicPartition) -> String {
        self.with(&of.topic, &of.partition.to_string())
    }

    fn with(&self, topic: &str, partition: &str) -> String {
        self.0.iter().fold(String::new(), |name, piece| {
            name + match piece {
                Piece::Text(text) => text,
                Piece::Topic => topic,
                Piece::Partition => partition,
            }
        })
    }

    /// Whether the number of the partition makes a difference.
    pub fn has_partition(&self) -> bool {
        self.0.contains(&Piece::Partition)
    }

    /// Whether there could be a topic of which records go to `target`.
    pub fn could_make(&self, target: &str) -> bool {
        // Each word stands for one character at least, and what is left of the name lies between the texts.
        let text = |piece: &Piece| match piece {
            Piece::Text(text) => regex::escape(text),
            Piece::Topic => ".+".to_owned(),
            Piece::Partition => "[0-9]+".to_owned(),
        };
        let pattern: String = self.0.iter().map(text).collect();
        // A pattern of such pieces is always right; were it not, nothing would be found that may be a circle.
        regex::Regex::new(&format!(r"\A(?:{pattern})\z")).is_ok_and(|regex| regex.is_match(target))
    }

    /// Whether records of some partition of `topic` go to `target`.
    pub fn can_lead(&self, topic: &str, target: &str) -> bool {
        if !self.has_partition() {
            return self.with(topic, "") == target;
        }
        // The number is what is left of the name when all the rest is taken away; it may stand there more than once.
        let rest = self.with(topic, "").len();
        let times = self.0.iter().filter(|piece| **piece == Piece::Partition).count();
        let Some(digits) = target.len().checked_sub(rest).filter(|left| left % times == 0).map(|left| left / times)
        else {
            return false;
        };
        let start = self.0.iter().take_while(|piece| **piece != Piece::Partition).fold(0, |at, piece| {
            at + match piece {
                Piece::Text(text) => text.len(),
                Piece::Topic | Piece::Partition => topic.len(),
            }
        });
        let number = target.get(start..start + digits).unwrap_or_default();
        number.parse::<u32>().is_ok_and(|n| n.to_string() == number) && self.with(topic, number) == target
    }
}

/// As it is written in the configuration.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with("{topic}", "{partition}"))
    }
}

/// Which partition of its topic a record goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// By its key, as a Java producer does: murmur2. Records without a key go by the number of the partition that they
    /// come from, so that those of one stay in their order.
    Key,
    /// Into the one with the same number.
    Same,
}

impl Placement {
    /// The partition, of so many (at least one).
    pub fn choose(self, from: &TopicPartition, record: &Record<'_>, partitions: i32) -> i32 {
        match (self, record.key) {
            (Self::Key, Some(key)) => (murmur2(key) & 0x7fff_ffff).cast_signed() % partitions,
            (Self::Key, None) => from.partition % partitions,
            (Self::Same, _) => from.partition,
        }
    }
}

/// Austin Appleby's MurmurHash2 with the seed of Kafka's Java clients (`org.apache.kafka.common.utils.Utils.murmur2`).
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    // Of a longer key Java has no length either.
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let (words, tail) = data.as_chunks::<4>();
    let mut hash = words.iter().fold(SEED ^ length, |hash, word| {
        let k = u32::from_le_bytes(*word).wrapping_mul(M);
        hash.wrapping_mul(M) ^ (k ^ (k >> 24)).wrapping_mul(M)
    });
    if !tail.is_empty() {
        let rest = tail.iter().rev().fold(0, |rest, byte| rest << 8 | u32::from(*byte));
        hash = (hash ^ rest).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_template_puts_in_topic_and_partition_and_nothing_else() {
        let name = |text: &str| Template::parse(text).unwrap().name(&TopicPartition::new("orders", 12));
        assert_eq!(name("copy"), "copy");
        assert_eq!(name("{topic}"), "orders");
        assert_eq!(name("copy-of-{topic}.{partition}"), "copy-of-orders.12");
        assert_eq!(Template::parse("a{topic}{partition}b").unwrap().to_string(), "a{topic}{partition}b");
        for wrong in ["{key}", "{topic", "topic}", "a{}b", "{ topic }", "{{topic}}"] {
            assert!(Template::parse(wrong).unwrap_err().contains("{partition}"), "{wrong}");
        }
    }

    #[test]
    fn it_is_known_whether_a_template_leads_to_a_topic() {
        let leads = |text: &str, to: &str| Template::parse(text).unwrap().can_lead("t", to);
        assert!(leads("{topic}", "t") && leads("t", "t") && !leads("{topic}-x", "t"));
        assert!(leads("{topic}-{partition}", "t-0") && leads("{topic}-{partition}", "t-17"));
        assert!(leads("{partition}a{partition}", "12a12") && !leads("{partition}a{partition}", "12a13"));
        for to in ["t-", "t-x", "t-007", "t", "u-1", "t--1"] {
            assert!(!leads("{topic}-{partition}", to), "{to}");
        }
    }

    /// The numbers are those of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn the_hash_is_that_of_kafkas_java_clients() {
        for (text, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ] {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), hash, "{text}");
        }
    }

    #[test]
    fn without_a_key_the_partition_it_comes_from_decides() {
        let record = |key| Record { key, ..Record::default() };
        let from = TopicPartition::new("t", 7);
        assert_eq!(Placement::Key.choose(&from, &record(None), 4), 3);
        assert_eq!(Placement::Same.choose(&from, &record(Some(b"k")), 4), 7);
        let of = |key| Placement::Key.choose(&from, &record(Some(key)), 6);
        assert_eq!(of(b"21"), (-973_932_308_i32 & 0x7fff_ffff) % 6);
        assert_eq!(of(b""), of(b""));
    }
}
