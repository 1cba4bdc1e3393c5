//! Writes the tiny models of `golden/tiny.rs` as GGUF files, with the prompt
//! that each is to be given, for `golden/make_logits.py`.
//!
//! `cargo run -p nearfar-engine --example write_tiny_models -- DIRECTORY`

use nearfar_engine::gguf;

#[path = "../golden/tiny.rs"]
mod tiny;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args()
        .nth(1)
        .ok_or("usage: write_tiny_models DIRECTORY")?;
    let mut models = Vec::new();
    for model in tiny::all() {
        std::fs::write(format!("{directory}/{}.gguf", model.name), model.file())?;
        models.push(serde_json::json!({
            "name": model.name,
            "context": model.load_context,
            "tokens": tiny::prompt(model.vocab),
        }));
    }
    std::fs::write(
        format!("{directory}/models.json"),
        serde_json::to_string_pretty(&models)?,
    )?;
    println!("{} models in {directory}", models.len());
    Ok(())
}
