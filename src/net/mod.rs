//! Sockets: addresses, listening, connections between servers, streams of bytes cut into request frames and
//! messages. No consensus and no SQL.

pub mod addr;
pub mod caller;
pub mod connect;
pub mod framed;
pub mod listen;
mod outbox;
pub mod peer;
pub mod receive;
pub mod stream;
