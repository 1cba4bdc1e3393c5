//! Arguments to roles and client verbs.
//!
//! The supervisor starts this same binary as `nearfar gate`, `nearfar engine`
//! and `nearfar egress`. Those are not verbs for people, and they must begin
//! their work before anything else runs, so they never reach the command line.

use std::process::ExitCode;

use nearfar::cli;
use nearfar::supervisor::{Role, child, serve};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if let (Some(verb), None) = (args.next(), args.next())
        && let Some(role) = Role::ALL.into_iter().find(|role| verb == role.name())
    {
        return child(role);
    }
    cli::main(serve)
}
