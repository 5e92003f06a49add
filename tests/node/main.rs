//! Real nodes in this process, over real sockets and disks, seen by their clients.

mod cluster;
mod single_node;
mod support;
