//! The calls of the store that one message costs, from webhook to recorded reply.
