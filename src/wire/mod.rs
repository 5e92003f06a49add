//! The client protocol, and the protocol between servers ([`raft`], [`raft_decoder`]): bytes to values and
//! back. Pure: no sockets, no clock, no SQL.
//!
//! ```text
//! client -> server   u64 protocol version, then request frames
//! server -> client   one response frame per request, or a series of ROWS frames
//! frame              header (8 bytes, [`frame::Header`]), body (whole 8-byte words)
//! ```
//!
//! Texts, SQL and blobs are bytes, never checked to be UTF-8: SQLite does not ask for it and C never did.
//! Decoded values are slices of the frame they came in.

pub mod failure;
pub mod frame;
pub mod handshake;
pub mod raft;
pub mod raft_decoder;
pub mod request;
pub mod response;
pub mod rows;
pub mod tuple;
