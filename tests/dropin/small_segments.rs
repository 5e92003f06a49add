//! A host program for kill9.sh: one node whose log has tiny segments and which takes a snapshot after every
//! few entries, so that a kill mostly hits it while it changes files.
//!
//! ```text
//! small_segments ADDRESS DIRECTORY
//! ```
//!
//! Prints "ready" when the node serves clients, and stops it cleanly at the end of its input.

use std::error::Error;
use std::io::Read;
use std::path::Path;

use dqlite::node::{Node, TrailingStrategy};

/// Two or three entries of a page fit.
const SEGMENT_SIZE: usize = 12 << 10;
/// Entries between two snapshots, and kept behind one.
const SNAPSHOT_ENTRIES: u32 = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, address, directory] = &arguments[..] else {
        return Err("usage: small_segments ADDRESS DIRECTORY".into());
    };
    std::fs::create_dir_all(directory)?;
    let node = Node::create(1, address, Path::new(directory))?;
    node.set_bind_address(address)?;
    node.set_segment_size(SEGMENT_SIZE)?;
    node.set_snapshot_params(SNAPSHOT_ENTRIES, SNAPSHOT_ENTRIES, TrailingStrategy::Static)?;
    node.start()?;
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(node.stop()?)
}
