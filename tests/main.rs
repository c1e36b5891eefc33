//! The integration tests: one binary, its modules by what they prove.

mod config;
