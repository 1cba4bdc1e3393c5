//! Arguments to roles and client verbs.

use std::process::ExitCode;

use nearfar::supervisor::{Role, ServeArgs, child, serve};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let verb = args.next().unwrap_or_default();
    if let Some(role) = Role::ALL.into_iter().find(|role| role.name() == verb) {
        return child(role);
    }
    let mut serving = ServeArgs::default();
    while let (Some(name), Some(value)) = (args.next(), args.next()) {
        match name.as_str() {
            "--listen" => serving
                .listen
                .extend(value.parse::<std::net::SocketAddr>().ok()),
            "--state-dir" => serving.state_dir = Some(value.into()),
            "--config" => serving.config = Some(value.into()),
            _ => return ExitCode::FAILURE,
        }
    }
    serve(serving)
}
