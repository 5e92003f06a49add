//! Connections that other servers open to us, from the moment in which they have introduced themselves. They
//! are read on the Raft thread, whose messages these are: nobody has to wake it for them.

use crate::net::receive::{Ended, NotTaken, Spools, receive};
use crate::net::stream::Detached;
use crate::raft::message::Message;
use crate::raft::{Peer, ServerId};
use bytes::BytesMut;
use std::sync::Arc;
use tokio::sync::mpsc;

/// A connection that another server opened to us.
pub struct Inbound {
    /// As it introduced itself.
    pub peer: Peer,
    /// Where its messages come from.
    pub stream: Detached,
    /// What was read of them.
    pub received: BytesMut,
    /// Where the snapshots in them go.
    pub spools: Arc<dyn Spools>,
}

/// What comes from such a connection.
pub enum Received {
    /// A message.
    Message(Peer, Message),
    /// It has ended.
    Closed(ServerId),
}

/// Passes on the messages of another server, in order, until its connection ends.
pub async fn receive_all(inbound: Inbound, received_by: mpsc::Sender<Received>) {
    let Inbound { peer, stream, received, spools } = inbound;
    let ended = match stream.attach() {
        Ok(stream) => {
            receive(&stream, received, &spools, |message| async {
                let message = Received::Message(peer.clone(), message);
                received_by.send(message).await.map_err(|_| NotTaken)
            })
            .await
        }
        Err(error) => error.into(),
    };
    match &ended {
        Ended::NotStored { .. } => {
            tracing::warn!(peer = %peer.id, %ended, "connection of another server ended")
        }
        _ => tracing::debug!(peer = %peer.id, %ended, "connection of another server ended"),
    }
    // The receiver has gone only once the node has stopped.
    let _ = received_by.send(Received::Closed(peer.id)).await;
}
