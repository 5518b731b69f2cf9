//! One file a kind of work. Each brings its rows of the table, with the peer or the yardstick measured in the same run.

pub(crate) mod acks;
pub(crate) mod build;
pub(crate) mod commits;
pub(crate) mod files;
pub(crate) mod idle;
pub(crate) mod load;
pub(crate) mod loss;
pub(crate) mod memory;
pub(crate) mod pressure;
pub(crate) mod replies;
pub(crate) mod start;
pub(crate) mod tables;
