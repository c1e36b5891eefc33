//! What a running worker tells over HTTP.

pub mod status;
