//! Placeholder until the sink lands.
