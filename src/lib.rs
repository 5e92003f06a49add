//! dqlite: SQLite, replicated by Raft, as a library inside your application.
//!
//! The crate builds a drop-in replacement for Canonical's `libdqlite.so.0`: the same C API, the same client
//! protocol, the same data directory. `docs/ARCHITECTURE.md` in the repository is the map of the modules.
//!
//! The modules are public for the tests of this repository only; their contents change without notice.

#![deny(unsafe_code)]

#[doc(hidden)]
pub mod client;
#[doc(hidden)]
pub mod codec;
#[doc(hidden)]
pub mod config;
#[doc(hidden)]
pub mod db;
#[doc(hidden)]
#[allow(unsafe_code)]
pub mod ffi;
#[doc(hidden)]
pub mod net;
#[doc(hidden)]
pub mod node;
#[doc(hidden)]
pub mod raft;
#[doc(hidden)]
pub mod server;
#[doc(hidden)]
#[allow(unsafe_code)]
pub mod sqlite;
#[doc(hidden)]
pub mod store;
#[doc(hidden)]
pub mod trace;
#[doc(hidden)]
#[allow(unsafe_code)]
pub mod vfs;
#[doc(hidden)]
pub mod wire;
