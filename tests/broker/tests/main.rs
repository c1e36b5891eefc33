//! The embedded broker against foreign clients.
