//! The webhook edge: what is authentic is landed durably, then acknowledged.
