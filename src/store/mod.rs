//! The data directory.

mod crc;
mod directory;
mod error;
pub mod fs;
mod list;
mod load;
mod metadata;
mod segment;
mod snapshot;

pub use directory::{Directory, LockedDirectory};
pub use error::Error;
pub use load::{AutoRecovery, Loaded, LoadedSnapshot};
pub use metadata::Metadata;
pub use snapshot::{Compression, SnapshotContent};
// TEMPORARY
use crate::raft::*;
pub enum Event { Persisted{seq:Seq}, Failed{seq:Seq,error:String}, SnapshotStored{index:Index,size:u64}, SnapshotFailed{index:Index,error:String} }
pub struct SnapshotRequest { pub point: SnapshotPoint, pub content: Box<dyn SnapshotContent>, pub trailing: u64, pub compress: bool }
#[derive(Default)]
pub struct StoreOptions { pub block_size: usize }
pub struct Store { tx: std::sync::mpsc::Sender<Event> }
impl Store {
 pub fn start(_d: LockedDirectory, _l:&Loaded, _o: StoreOptions, report: Box<dyn Fn(Event)+Send+Sync>) -> Result<Store, Error> { let (tx,rx)=std::sync::mpsc::channel(); std::thread::spawn(move || { for e in rx { report(e) } }); Ok(Store{tx}) }
 pub fn persist_vote(&mut self,_t:Term,_v:Option<ServerId>,seq:Seq){ let _=self.tx.send(Event::Persisted{seq}); }
 pub fn append(&mut self,_f:Index,_e:Vec<Entry>,seq:Seq){ let _=self.tx.send(Event::Persisted{seq}); }
 pub fn truncate(&mut self,_f:Index,seq:Seq){ let _=self.tx.send(Event::Persisted{seq}); }
 pub fn store_snapshot(&mut self,r:SnapshotRequest){ let _=self.tx.send(Event::SnapshotStored{index:r.point.index,size:r.content.size()}); }
 pub fn queued_bytes(&self)->usize{0}
 pub fn stop(self)->Result<(),Error>{Ok(())}
}
