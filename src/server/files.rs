//! The files in which a server remembers itself and the others, beside those of the log. Format of C dqlite:
//! text, each line ended by a line feed.
//!
//! ```text
//! server-info     v1, own address, own id
//! node-store      v1, then for each server: address, id, "voter" or "standby" or "spare"
//! ```
//!
//! Ids are decimal. An empty file, which C creates first, counts as none. A file is replaced as a whole: it
//! is written under its name with `-tmp` behind, synced and renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::client::{Role, Server};
use crate::config::SERVER_FILE_SIZE_MAX;

const SERVER_INFO: &str = "server-info";
const NODE_STORE: &str = "node-store";
const VERSION: &str = "v1";
const MODE: u32 = 0o664;

/// What a server remembers of itself: it keeps both for life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerInfo {
    /// Where the others reach it.
    pub address: String,
    /// Its id.
    pub id: u64,
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Its content is wrong.
    #[error("{}:{line}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        problem: &'static str,
    },
    /// It cannot be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// The files in one directory.
#[derive(Debug, Clone)]
pub struct Files {
    directory: PathBuf,
}

impl Files {
    /// In this directory; nothing is read yet.
    pub fn new(directory: &Path) -> Files {
        Files { directory: directory.to_owned() }
    }

    /// Who this server is, if it was started here before.
    pub fn server_info(&self) -> Result<Option<ServerInfo>, FileError> {
        self.read(SERVER_INFO, parse_server_info)
    }

    /// The servers of the cluster as they were last seen, if they ever were.
    pub fn node_store(&self) -> Result<Option<Vec<Server>>, FileError> {
        self.read(NODE_STORE, parse_node_store)
    }

    /// Replaces `server-info`.
    pub fn write_server_info(&self, own: &ServerInfo) -> Result<(), FileError> {
        self.write(SERVER_INFO, &format!("{VERSION}\n{}\n{}\n", own.address, own.id))
    }

    /// Replaces `node-store`, unless it says the same already. A server whose address is no line of text, and
    /// would make the file unreadable, is left out.
    pub fn write_node_store(&self, servers: &[Server]) -> Result<(), FileError> {
        let mut text = format!("{VERSION}\n");
        for server in servers.iter().filter(|server| is_line(&server.address)) {
            text += &format!("{}\n{}\n{}\n", server.address, server.id, server.role.name());
        }
        match fs::read(self.directory.join(NODE_STORE)) {
            Ok(current) if current == text.as_bytes() => Ok(()),
            _ => self.write(NODE_STORE, &text),
        }
    }

    fn read<T>(
        &self,
        name: &str,
        parse: fn(&mut Lines<'_>) -> Result<T, &'static str>,
    ) -> Result<Option<T>, FileError> {
        let path = self.directory.join(name);
        let mut content = Vec::new();
        let read =
            File::open(&path).and_then(|file| file.take(SERVER_FILE_SIZE_MAX + 1).read_to_end(&mut content));
        match read {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(FileError::Io { path, error }),
        }
        let mut lines = Lines { rest: &content, number: 0 };
        let parsed = match content.len() as u64 > SERVER_FILE_SIZE_MAX {
            true => Err("the file is too large"),
            false => lines.version().and_then(|()| parse(&mut lines)),
        };
        parsed.map(Some).map_err(|problem| FileError::Content { path, line: lines.number.max(1), problem })
    }

    fn write(&self, name: &str, text: &str) -> Result<(), FileError> {
        let (path, temporary) = (self.directory.join(name), self.directory.join(format!("{name}-tmp")));
        let written = || {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&self.directory)?.sync_all()
        };
        written().map_err(|error| FileError::Io { path: path.clone(), error })
    }
}

/// Whether an address can stand in a file.
pub fn is_line(address: &str) -> bool {
    !address.is_empty() && !address.contains('\n')
}

/// The lines of a file, counted.
struct Lines<'a> {
    rest: &'a [u8],
    number: usize,
}

impl<'a> Lines<'a> {
    /// The next line, which must be there and be ended.
    fn next(&mut self) -> Result<&'a str, &'static str> {
        self.number += 1;
        let end = self.rest.iter().position(|byte| *byte == b'\n');
        let end = end.ok_or("the line is missing, or the line feed at its end: the file was cut off")?;
        let line = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        std::str::from_utf8(line).map_err(|_| "the line is not valid UTF-8")
    }

    fn version(&mut self) -> Result<(), &'static str> {
        match self.next()? {
            VERSION => Ok(()),
            _ => Err("expected \"v1\", the only format that is known"),
        }
    }

    fn address(&mut self) -> Result<String, &'static str> {
        match self.next()? {
            "" => Err("expected an address"),
            address => Ok(address.to_owned()),
        }
    }

    fn id(&mut self) -> Result<u64, &'static str> {
        let digits = self.next()?;
        // The standard parser would take a sign.
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|_| plain).ok_or("expected an id, a decimal number below 2^64")
    }

    fn role(&mut self) -> Result<Role, &'static str> {
        let name = self.next()?;
        let role = Role::ALL.into_iter().find(|role| role.name() == name);
        role.ok_or("expected \"voter\", \"standby\" or \"spare\"")
    }
}

fn parse_server_info(lines: &mut Lines<'_>) -> Result<ServerInfo, &'static str> {
    let own = ServerInfo { address: lines.address()?, id: lines.id()? };
    if !lines.rest.is_empty() {
        lines.number += 1;
        return Err("nothing is expected after the id");
    }
    Ok(own)
}

fn parse_node_store(lines: &mut Lines<'_>) -> Result<Vec<Server>, &'static str> {
    let mut servers = Vec::new();
    while !lines.rest.is_empty() {
        let (address, id, role) = (lines.address()?, lines.id()?, lines.role()?);
        servers.push(Server { id, address, role });
    }
    Ok(servers)
}

#[cfg(test)]
#[path = "files_test.rs"]
mod tests;
