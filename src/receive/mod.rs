//! The webhook edge: what is authentic is landed durably, then acknowledged.

mod body;
mod claim;
mod intake;
mod landing;
mod lane;
mod server;
mod slumber;
#[cfg(test)]
mod tests;
mod webhook;
mod writer;

pub use self::body::{SECRET_HEADER, VerifiedBody};
pub use self::claim::newest_key_of;
pub use self::landing::{Landing, LaneOptions};
pub use self::lane::LaneWriter;
pub use self::server::{Endpoint, Receiver};
