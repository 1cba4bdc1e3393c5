//! `nearfar serve`: starts, confines and restarts the three processes. Sees no
//! request and no key.

pub mod handover;
