//! What `hammerd demo` needs besides the daemon itself.

mod origin;

pub use origin::Origin;
