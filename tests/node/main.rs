//! Real nodes in this process, over real sockets and disks, seen by their clients.

#![allow(clippy::unwrap_used)] // the tools outside of test functions panic too

mod cluster;
mod edges;
mod leadership;
mod roles;
mod server;
mod single_node;
mod support;
