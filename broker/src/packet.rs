//! MQTT's control packets: from bytes to values, with every check that the standard asks for, and back.
//!
//! Nothing here knows of connections, sessions or limits other than those of a packet.

pub(crate) mod codec;
pub(crate) mod connect;
pub(crate) mod fields;
pub(crate) mod frame;
pub(crate) mod outbound_publish;
pub(crate) mod properties;
pub(crate) mod subscribe;
pub(crate) mod will;
