//! Sockets: addresses, listening, streams of bytes cut into request frames. No consensus and no SQL.

pub mod addr;
pub mod framed;
pub mod listen;
pub mod stream;
