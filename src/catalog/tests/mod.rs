//! The model store on a real disk, with small real model files.

#![allow(clippy::unwrap_used)]

mod links;
mod outside;
mod tuning;

use std::path::{Path, PathBuf};

use nearfar_domain::frames::ModelSource;
use nearfar_engine::gguf::{GgufWriter, TensorType, Value};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::*;

/// A whole, tiny llama of one layer. `salt` makes files differ.
fn gguf(salt: u8) -> Vec<u8> {
    gguf_of("llama", salt)
}

fn gguf_of(architecture: &str, salt: u8) -> Vec<u8> {
    gguf_with(architecture, "qwen2", salt)
}

fn gguf_with(architecture: &str, pre: &str, salt: u8) -> Vec<u8> {
    gguf_with_token(architecture, pre, salt, "hi")
}

/// With this token after the bytes'.
fn gguf_with_token(architecture: &str, pre: &str, salt: u8, token: &str) -> Vec<u8> {
    // GPT-2's byte alphabet: printable bytes stand for themselves.
    let mut next = 0;
    let mut tokens: Vec<String> = (0..=255u8)
        .map(|byte| match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte).to_string(),
            _ => {
                next += 1;
                char::from_u32(255 + next).unwrap().to_string()
            }
        })
        .collect();
    tokens.extend([token.to_owned(), "<|im_end|>".to_owned()]);
    let merge = format!("{} {}", &token[..1], &token[1..]);
    let mut types = vec![1; 257];
    types.push(3);
    let key = |name: &str| format!("{architecture}.{name}");
    let mut writer = GgufWriter::default();
    writer
        .set("general.architecture", Value::Text(architecture.into()))
        .set("general.license", Value::Text("apache-2.0".into()))
        .set(&key("context_length"), Value::Unsigned(64))
        .set(&key("embedding_length"), Value::Unsigned(8))
        .set(&key("block_count"), Value::Unsigned(1))
        .set(&key("feed_forward_length"), Value::Unsigned(16))
        .set(&key("attention.head_count"), Value::Unsigned(2))
        .set(&key("attention.head_count_kv"), Value::Unsigned(1))
        .set(&key("attention.layer_norm_rms_epsilon"), Value::Float(1e-5))
        .set("tokenizer.ggml.model", Value::Text("gpt2".into()))
        .set("tokenizer.ggml.pre", Value::Text(pre.into()))
        .set("tokenizer.ggml.tokens", Value::Texts(tokens))
        .set("tokenizer.ggml.token_type", Value::Integers(types))
        .set("tokenizer.ggml.merges", Value::Texts(vec![merge]));
    for (name, shape) in [
        ("token_embd", &[258, 8][..]),
        ("output_norm", &[8]),
        ("blk.0.attn_norm", &[8]),
        ("blk.0.attn_q", &[8, 8]),
        ("blk.0.attn_k", &[4, 8]),
        ("blk.0.attn_v", &[4, 8]),
        ("blk.0.attn_output", &[8, 8]),
        ("blk.0.ffn_norm", &[8]),
        ("blk.0.ffn_gate", &[16, 8]),
        ("blk.0.ffn_up", &[16, 8]),
        ("blk.0.ffn_down", &[8, 16]),
    ] {
        let data: Vec<u8> = (0..shape.iter().product())
            .flat_map(|_: usize| f32::from(salt).to_le_bytes())
            .collect();
        writer.tensor(&format!("{name}.weight"), shape, TensorType::F32, data);
    }
    let mut bytes = Vec::new();
    writer.write(&mut bytes).unwrap();
    bytes
}

struct Place {
    dir: TempDir,
    store: ModelStore,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let store = ModelStore::new(&dir.path().join("state"));
        std::fs::create_dir(dir.path().join("state")).unwrap();
        Place { dir, store }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn add(&self, new: &NewModel) -> Result<Manifest, CatalogError> {
        self.store.add(new, &mut |_| {})
    }

    fn names(&self) -> Vec<String> {
        let (manifests, bad) = self.store.manifests().unwrap();
        assert!(bad.is_empty(), "{bad:?}");
        manifests.into_iter().map(|m| m.name).collect()
    }
}

fn new(file: &Path) -> NewModel {
    NewModel {
        file: file.to_owned(),
        name: None,
        origin: Origin::File {
            path: file.to_owned(),
        },
        digest: None,
        link: false,
        consume: false,
        pinned: false,
        tokenizer: None,
    }
}

fn sha256(bytes: &[u8]) -> String {
    incoming::hex(&Sha256::digest(bytes))
}

fn entries(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_file_is_copied_hashed_named_and_seen_after_a_rescan() {
    let place = Place::new();
    let catalog = Catalog::open(&place.state());
    let before = catalog.models().len();
    let bytes = gguf(1);
    let file = place.file("My Tiny_Model.Q8_0.gguf", &bytes);
    let mut steps = Vec::new();
    let manifest = place
        .store
        .add(&new(&file), &mut |at| steps.push(at))
        .unwrap();
    assert_eq!(manifest.name, "my-tiny_model.q8_0");
    assert_eq!(manifest.sha256, sha256(&bytes));
    assert_eq!(steps.last().unwrap().done, bytes.len() as u64);
    assert!(!manifest.pinned_at_first_pull);
    assert_eq!(manifest.facts.licence.as_deref(), Some("apache-2.0"));
    std::fs::remove_file(&file).unwrap();
    assert_eq!(catalog.models().len(), before, "not before the rescan");
    assert_eq!(catalog.rescan(), before + 1);
    let models = catalog.models();
    let model = models.last().unwrap();
    let ModelSource::File {
        path,
        tokenizer: None,
        sha256: Some(digest),
        tuning: _,
    } = &model.source
    else {
        panic!()
    };
    assert_eq!(std::fs::read(path).unwrap(), bytes);
    assert_eq!(*digest, manifest.sha256);
    assert!(path.ends_with(&format!("blobs/sha256-{}", manifest.sha256)));
    assert_eq!(model.architecture, "llama");
    assert_eq!(model.capabilities.context_tokens, Some(64));
    let can = model.capabilities;
    assert!(can.logprobs && can.raw_text && can.json_object && can.json_schema && can.grammar);
    assert!(!can.tools && !can.forced_tools && !can.vision);
    assert_eq!(
        entries(&place.store.incoming()),
        [""; 0],
        "nothing is left behind"
    );
    // Everything again from the disk alone.
    assert_eq!(*Catalog::open(&place.state()).models(), *models);
}

#[test]
fn a_name_is_used_once_and_the_same_file_again_changes_nothing() {
    let place = Place::new();
    let one = place.file("one.gguf", &gguf(1));
    let first = place.add(&new(&one)).unwrap();
    assert_eq!(place.add(&new(&one)).unwrap(), first);
    let two = place.file("other/one.gguf", &gguf(2));
    let error = place.add(&new(&two)).unwrap_err();
    assert!(matches!(&error, CatalogError::NameTaken(name) if name == "one"));
    assert!(error.to_string().contains("--name"), "{error}");
    assert_eq!(place.store.get("one").unwrap(), first);
    let named = NewModel {
        name: Some("two".into()),
        ..new(&two)
    };
    place.add(&named).unwrap();
    assert_eq!(place.names(), ["one", "two"]);
    for bad in ["", "..", "../x", "A", "a/b", "-a", "a b", &"a".repeat(65)] {
        let named = NewModel {
            name: Some(bad.into()),
            ..new(&two)
        };
        let error = place.add(&named).unwrap_err().to_string();
        assert!(error.contains("--name"), "{bad}: {error}");
    }
    let named = NewModel {
        name: Some(EMBEDDED.into()),
        ..new(&two)
    };
    assert!(matches!(place.add(&named), Err(CatalogError::Embedded(..))));
}

#[test]
fn weights_are_shared_by_names_and_go_with_the_last() {
    let place = Place::new();
    let file = place.file("a.gguf", &gguf(1));
    place.add(&new(&file)).unwrap();
    place
        .add(&NewModel {
            name: Some("b".into()),
            ..new(&file)
        })
        .unwrap();
    assert_eq!(entries(&place.store.blobs()).len(), 1);
    // What clients pinned for it, and for others.
    let pinned = place.store.pinned();
    std::fs::create_dir(&pinned).unwrap();
    let digest = place.store.get("a").unwrap().sha256;
    let others = ["embedded00-1.kv".to_owned(), "unfinished.tmp".to_owned()];
    for name in others.iter().chain([&format!("{digest}-1.kv")]) {
        std::fs::write(pinned.join(name), "kept").unwrap();
    }
    place.store.remove("a").unwrap();
    assert_eq!(entries(&place.store.blobs()).len(), 1);
    assert_eq!(entries(&pinned).len(), 3);
    assert_eq!(place.names(), ["b"]);
    place.store.remove("b").unwrap();
    assert_eq!(entries(&place.store.blobs()), [""; 0]);
    assert_eq!(entries(&pinned), others);
    assert!(matches!(
        place.store.remove("b"),
        Err(CatalogError::NoSuchModel(_))
    ));
    assert!(matches!(
        place.store.remove("../../etc"),
        Err(CatalogError::Spec(_))
    ));
    assert!(matches!(
        place.store.remove(EMBEDDED),
        Err(CatalogError::Embedded(..))
    ));
}

#[test]
fn what_the_engine_refuses_never_becomes_visible() {
    let place = Place::new();
    let good = gguf(1);
    let cases = [
        ("empty.gguf", Vec::new(), "damaged"),
        ("text.gguf", b"hello, I am no model".to_vec(), "GGUF"),
        ("cut.gguf", good[..good.len() / 2].to_vec(), "the file"),
        ("short.gguf", good[..good.len() - 1].to_vec(), "the file"),
        ("other.gguf", gguf_of("mamba", 1), "mamba"),
    ];
    for (name, bytes, reason) in cases {
        let file = place.file(name, &bytes);
        for link in [false, true] {
            let error = place.add(&NewModel { link, ..new(&file) }).unwrap_err();
            let CatalogError::Unusable { path, .. } = &error else {
                panic!("{error}")
            };
            assert_eq!(path, &file);
            assert!(error.to_string().contains(reason), "{name}: {error}");
        }
    }
    // Every byte of the header turned over: refused or read, never a panic.
    for at in 0..400 {
        let mut bytes = good.clone();
        bytes[at] ^= 0xff;
        let file = place.file("flipped.gguf", &bytes);
        if place.add(&new(&file)).is_ok() {
            place.store.remove("flipped").unwrap();
        }
    }
    let absent = place.dir.path().join("absent.gguf");
    assert!(matches!(
        place.add(&new(&absent)),
        Err(CatalogError::Io { .. })
    ));
    let folder = place.dir.path().to_owned();
    let named = NewModel {
        name: Some("x".into()),
        ..new(&folder)
    };
    assert!(matches!(place.add(&named), Err(CatalogError::Spec(_))));
    assert_eq!(place.names(), [""; 0]);
    assert_eq!(entries(&place.store.blobs()), [""; 0]);
    assert_eq!(entries(&place.store.incoming()), [""; 0]);
}

#[test]
fn a_wrong_digest_is_refused() {
    let place = Place::new();
    let file = place.file("a.gguf", &gguf(1));
    let wrong = NewModel {
        digest: Some(sha256(b"other")),
        ..new(&file)
    };
    for link in [false, true] {
        let error = place
            .add(&NewModel {
                link,
                ..wrong.clone()
            })
            .unwrap_err();
        assert!(matches!(error, CatalogError::WrongDigest { .. }), "{error}");
    }
    assert_eq!(place.names(), [""; 0]);
    let right = NewModel {
        digest: Some(sha256(&gguf(1))),
        ..new(&file)
    };
    place.add(&right).unwrap();
}

#[test]
fn what_a_killed_add_leaves_is_invisible_and_swept_up() {
    let place = Place::new();
    place.store.prepare().unwrap();
    // Killed while copying; and killed between the blob's rename and the manifest's.
    let copy = place.store.incoming().join("copy-1-0");
    std::fs::write(&copy, &gguf(1)[..100]).unwrap();
    let orphan = place.store.blob(&sha256(&gguf(2)));
    std::fs::write(&orphan, gguf(2)).unwrap();
    let catalog = Catalog::open(&place.state());
    assert!(catalog.models().iter().all(|m| m.name == EMBEDDED));
    // A copy that is under way in another process is not touched.
    let busy = place.store.incoming().join("copy-2-0");
    let held = std::fs::File::create(&busy).unwrap();
    held.lock().unwrap();
    let file = place.file("a.gguf", &gguf(3));
    place.add(&new(&file)).unwrap();
    assert!(!copy.exists(), "swept by the next add");
    assert!(busy.exists());
    place.store.remove("a").unwrap();
    assert!(!orphan.exists() && busy.exists());
}

#[test]
fn a_broken_manifest_is_left_out_and_named_and_hides_no_other() {
    let place = Place::new();
    for (name, salt) in [("a", 1), ("b", 2), ("c", 3)] {
        let file = place.file(&format!("{name}.gguf"), &gguf(salt));
        place.add(&new(&file)).unwrap();
    }
    let path = place.store.manifest_path("b");
    let good = std::fs::read_to_string(&path).unwrap();
    let digest = place.store.get("b").unwrap().sha256;
    for bad in [
        "{".to_owned(),
        String::new(),
        good.replace(&digest, "../../../etc/passwd"),
        good.replace("\"name\": \"b\"", "\"name\": \"a\""),
        good.replace("\"schema\": 1", "\"schema\": 2"),
        " ".repeat(100_000) + &good,
    ] {
        std::fs::write(&path, &bad).unwrap();
        let (manifests, problems) = place.store.manifests().unwrap();
        assert_eq!(manifests.len(), 2);
        assert!(
            problems[0].to_string().contains("b.json"),
            "{}",
            problems[0]
        );
        let models = Catalog::open(&place.state()).models();
        let names: Vec<&str> = models
            .iter()
            .map(|m| m.name.as_str())
            .filter(|n| *n != EMBEDDED)
            .collect();
        assert_eq!(names, ["a", "c"]);
        // Unknown manifests may name any blob: nothing is swept.
        place.store.remove("c").unwrap();
        assert_eq!(entries(&place.store.blobs()).len(), 3);
        place.add(&new(&place.dir.path().join("c.gguf"))).unwrap();
    }
    place.store.remove("b").unwrap();
    assert_eq!(place.names(), ["a", "c"]);
    assert_eq!(entries(&place.store.blobs()).len(), 2);
}

#[test]
fn adds_at_the_same_time_are_safe() {
    let place = Place::new();
    let same = place.file("same.gguf", &gguf(1));
    let files: Vec<PathBuf> = (0..6)
        .map(|n| place.file(&format!("m{n}.gguf"), &gguf(10 + n)))
        .collect();
    let rivals: Vec<PathBuf> = (0..4)
        .map(|n| place.file(&format!("{n}/rival.gguf"), &gguf(100 + n)))
        .collect();
    let won = std::thread::scope(|scope| {
        let mut all = Vec::new();
        for file in files.iter().chain(std::iter::repeat_n(&same, 4)) {
            all.push(scope.spawn(|| place.add(&new(file)).unwrap()));
        }
        let rivals: Vec<_> = rivals
            .iter()
            .map(|file| scope.spawn(|| place.add(&new(file))))
            .collect();
        all.into_iter()
            .for_each(|thread| drop(thread.join().unwrap()));
        rivals
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .filter(Result::is_ok)
            .count()
    });
    assert_eq!(won, 1, "one of the rivals has the name");
    assert_eq!(place.names().len(), 8);
    let findings = place.store.verify(None, &mut |_, _| {}).unwrap();
    assert!(
        findings.iter().all(|f| f.verdict == Verdict::Good),
        "{findings:?}"
    );
    assert_eq!(entries(&place.store.incoming()), [""; 0]);
}

#[test]
fn a_tokenizer_beside_the_model_comes_with_it() {
    let place = Place::new();
    let file = place.file("odd.gguf", &gguf_with("llama", "never-heard-of", 1));
    let error = place.add(&new(&file)).unwrap_err().to_string();
    assert!(error.contains("never-heard-of"), "{error}");
    let json = br#"{"version":"1.0","model":{"type":"BPE","vocab":{"h":0,"i":1,"hi":2},"merges":["h i"]}}"#;
    let tokenizer = Some(place.file("tokenizer.json", json));
    let with = NewModel {
        tokenizer,
        ..new(&file)
    };
    let manifest = place.add(&with).unwrap();
    assert_eq!(manifest.tokenizer, Some(sha256(json)));
    let model = place.store.local_model(&manifest);
    let ModelSource::File {
        tokenizer: Some(path),
        ..
    } = model.source
    else {
        panic!("no tokenizer")
    };
    assert_eq!(std::fs::read(path).unwrap(), json);
    let findings = place.store.verify(Some("odd"), &mut |_, _| {}).unwrap();
    assert_eq!(findings.len(), 2);
    assert!(findings.iter().all(|f| f.verdict == Verdict::Good));
    let bad = NewModel {
        tokenizer: Some(place.file("bad.json", b"{")),
        name: Some("other".into()),
        ..new(&file)
    };
    assert!(matches!(
        place.add(&bad),
        Err(CatalogError::Unusable { .. })
    ));
    place.store.remove("odd").unwrap();
    assert_eq!(entries(&place.store.blobs()), [""; 0]);
    assert_eq!(entries(&place.store.incoming()), [""; 0]);
}

#[test]
fn the_model_in_the_binary_comes_first_and_can_use_tools() {
    let place = Place::new();
    place.add(&new(&place.file("a.gguf", &gguf(1)))).unwrap();
    let models = Catalog::open(&place.state()).models();
    assert_eq!(models.len(), 2);
    assert_eq!(
        (models[0].name.as_str(), &models[0].source),
        (EMBEDDED, &ModelSource::Embedded)
    );
    assert!(models[0].capabilities.tools);
    let digest = sha256(nearfar_engine::embedded_model());
    assert_eq!(models[0].sha256, digest, "as written beside the file");
    assert_eq!(models[1].name, "a");
}
