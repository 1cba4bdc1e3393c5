//! The tests' provider double as a program, to try nearfar without a key:
//!
//! ```sh
//! cargo run --example provider_double
//! ```
//!
//! It prints the variables that point nearfar at it, and every request that it
//! gets (method, path, length; never content).
#![allow(
    clippy::disallowed_methods,
    reason = "a server for tests opens its own socket"
)]

use std::time::Duration;

#[path = "../tests/support/double.rs"]
mod double;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:0".to_owned());
    let Ok(address) = address.parse() else {
        eprintln!("usage: provider_double [ADDRESS:PORT]");
        std::process::exit(2);
    };
    let double = double::Double::listen(address).await;
    println!(
        "OPENAI_API_KEY=sk-double OPENAI_BASE_URL={}",
        double.openai_base()
    );
    println!(
        "ANTHROPIC_API_KEY=sk-double ANTHROPIC_BASE_URL={}",
        double.anthropic_base()
    );
    println!("HF_ENDPOINT={}", double.hf_endpoint());
    let mut told = 0;
    loop {
        let requests = double.requests();
        for request in &requests[told..] {
            println!(
                "{} {} ({} bytes, connection {})",
                request.method,
                request.path,
                request.body.len(),
                request.connection
            );
        }
        told = requests.len();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
