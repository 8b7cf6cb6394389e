//! Connection limits and addresses.
