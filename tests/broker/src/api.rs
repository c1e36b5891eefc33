//! The requests that are served, and in which versions.

use std::collections::BTreeMap;

/// The highest version of Produce that is offered. Only 0 is served; a higher one closes the connection.
/// librdkafka believes that a broker has record batches (magic 2) only if Produce 3 is offered beside
/// Fetch 4, and asks with Fetch 0 otherwise (`rdkafka_feature.c`, `RD_KAFKA_FEATURE_MSGVER2`).
pub const OFFERED_PRODUCE: i16 = 3;

/// A kind of request. The number is Kafka's *api key*.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Api {
    /// Appends records (version 0).
    Produce = 0,
    /// Reads records (versions 0 and 4).
    Fetch = 1,
    /// Log start, log end, offset by time (versions 0 and 1).
    ListOffsets = 2,
    /// Brokers, topics, leaders (versions 0 to 12).
    Metadata = 3,
    /// Stores a group's offsets (versions 1 and 2; 0 is answered with an error).
    OffsetCommit = 8,
    /// A group's offsets (version 1; 0 is answered with an error).
    OffsetFetch = 9,
    /// Which broker is in charge of a group (version 0). The `kafka` crate calls it GroupCoordinator.
    FindCoordinator = 10,
    /// A group's state and members (version 0).
    DescribeGroups = 15,
    /// What the broker serves (version 0).
    ApiVersions = 18,
}

impl Api {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Produce,
        Self::Fetch,
        Self::ListOffsets,
        Self::Metadata,
        Self::OffsetCommit,
        Self::OffsetFetch,
        Self::FindCoordinator,
        Self::DescribeGroups,
        Self::ApiVersions,
    ];

    pub(crate) fn from_key(key: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|api| *api as i16 == key)
    }

    /// Whether this crate can answer the version at all.
    fn is_implemented(self, version: i16) -> bool {
        match self {
            Self::Produce | Self::FindCoordinator | Self::DescribeGroups | Self::ApiVersions => version == 0,
            Self::Fetch => version == 0 || version == 4,
            Self::ListOffsets | Self::OffsetFetch => (0..=1).contains(&version),
            Self::Metadata => (0..=12).contains(&version),
            Self::OffsetCommit => (0..=2).contains(&version),
        }
    }

    /// Whether requests and answers of this version are of the flexible form.
    pub(crate) fn is_flexible(self, version: i16) -> bool {
        self == Self::Metadata && version >= 9
    }
}

/// What ApiVersions says: the lowest and the highest version of each request. A request outside of
/// it closes the connection, as with Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versions(BTreeMap<Api, (i16, i16)>);

impl Versions {
    /// A broker that still serves old clients. The lowest versions are those of Kafka 3.9, the
    /// highest ones those of this crate, but for Produce: see [`OFFERED_PRODUCE`].
    pub fn kafka_3_9() -> Self {
        Self(BTreeMap::from([
            (Api::Produce, (0, OFFERED_PRODUCE)),
            (Api::Fetch, (0, 4)),
            (Api::ListOffsets, (0, 1)),
            (Api::Metadata, (0, 12)),
            (Api::OffsetCommit, (0, 2)),
            (Api::OffsetFetch, (0, 1)),
            (Api::FindCoordinator, (0, 0)),
            (Api::DescribeGroups, (0, 0)),
            (Api::ApiVersions, (0, 0)),
        ]))
    }

    /// A broker that no longer does (KIP-896). It still *offers* Produce 0, as Kafka 4 does, and
    /// closes the connection on it.
    pub fn kafka_4() -> Self {
        Self::kafka_3_9().with(Api::Fetch, 4, 4).with(Api::ListOffsets, 1, 1).with(Api::OffsetCommit, 2, 2).with(
            Api::OffsetFetch,
            1,
            1,
        )
    }

    /// The same, but with these versions of one request.
    #[must_use]
    pub fn with(mut self, api: Api, lowest: i16, highest: i16) -> Self {
        self.0.insert(api, (lowest, highest));
        self
    }

    /// The same, without one request (an old broker).
    #[must_use]
    pub fn without(mut self, api: Api) -> Self {
        self.0.remove(&api);
        self
    }

    pub(crate) fn serve(&self, api: Api, version: i16) -> bool {
        let offered = self.0.get(&api).is_some_and(|(lowest, highest)| (lowest..=highest).contains(&&version));
        let gone = api == Api::Produce && self.0.get(&Api::Fetch).is_some_and(|(lowest, _)| *lowest > 0);
        offered && !gone && api.is_implemented(version)
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (Api, i16, i16)> + '_ {
        self.0.iter().map(|(api, (lowest, highest))| (*api, *lowest, *highest))
    }
}

impl Default for Versions {
    fn default() -> Self {
        Self::kafka_3_9()
    }
}
