//! Arguments to roles and client verbs.

fn main() {}
